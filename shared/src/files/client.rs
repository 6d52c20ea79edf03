//! Clients of object stores. Endpoint, region and credentials come from the environment, as each cloud's own tools name
//! them.
use std::sync::Arc;
#[cfg(feature = "cloud")]
use std::time::Duration;

use object_store::{Error, ObjectStore};

use super::location::{BucketUrl, Cloud};

/// A client of the bucket, without its prefix.
///
/// # Errors
/// A sentence: a setting in the environment is not valid, or is missing.
#[cfg(feature = "cloud")]
pub(super) fn connect(url: &BucketUrl) -> Result<Arc<dyn ObjectStore>, String> {
    use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
    use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
    use object_store::client::ClientConfigKey as Key;
    use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};

    // A Rust program with its own handlers may not have installed a provider; this fails only if one is installed
    // already.
    drop(rustls::crypto::ring::default_provider().install_default());
    // A file may take long in all, but not long without a byte.
    let options = [(Key::Timeout, "7 days"), (Key::ReadTimeout, "60 seconds"), (Key::ConnectTimeout, "5 seconds")];
    let bucket = url.bucket.as_str();
    let built: object_store::Result<Arc<dyn ObjectStore>> = match url.cloud {
        Cloud::S3 => {
            let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry());
            for (key, value) in options {
                builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
            }
            builder.build().map(|store| Arc::new(store) as _)
        }
        Cloud::Gcs => {
            let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).with_retry(retry());
            for (key, value) in options {
                builder = builder.with_config(GoogleConfigKey::Client(key), value);
            }
            builder.build().map(|store| Arc::new(store) as _)
        }
        Cloud::Azure => {
            let mut builder = MicrosoftAzureBuilder::from_env().with_container_name(bucket).with_retry(retry());
            for (key, value) in options {
                builder = builder.with_config(AzureConfigKey::Client(key), value);
            }
            builder.build().map(|store| Arc::new(store) as _)
        }
    };
    built.map_err(|e| format!("{}; {}", brief(&e), credentials(url.cloud)))
}

/// The refusal of a build that cannot speak to object stores.
#[cfg(not(feature = "cloud"))]
pub(super) fn connect(_: &BucketUrl) -> Result<Arc<dyn ObjectStore>, String> {
    Err("this program was built without object storage; build it with the cargo feature `cloud`, or name a local \
         folder as file:///an/absolute/folder"
        .into())
}

/// A server that refuses connections is given up after about 8 s, depending on the random pauses.
#[cfg(feature = "cloud")]
fn retry() -> object_store::RetryConfig {
    let backoff = object_store::BackoffConfig {
        init_backoff: Duration::from_millis(250),
        max_backoff: Duration::from_secs(4),
        base: 3.0,
    };
    object_store::RetryConfig { backoff, max_retries: 6, retry_timeout: Duration::from_secs(120) }
}

/// Why a bucket cannot be used, and what to do about it. `action` is what was tried, as in "listing".
pub(super) fn explain(url: &BucketUrl, action: &str, error: &Error) -> String {
    let said = brief(error);
    // The error of a listing has its status in the text only.
    let is = |status: u16| said.contains(&format!("status code: {status}"));
    // What the metadata service answers is not about the bucket.
    let is_metadata = ["/latest/", "computeMetadata", "/metadata/identity"].iter().any(|path| said.contains(path));
    match error {
        _ if is_metadata && !has_credentials(url.cloud) => without_credentials(url, action, &said),
        Error::NotFound { .. } => missing(url, &said),
        _ if is(404) => missing(url, &said),
        Error::PermissionDenied { .. } => denied(url, action, &said),
        _ if is(403) => denied(url, action, &said),
        Error::Unauthenticated { .. } => format!("{action} was refused; {}: {said}", credentials(url.cloud)),
        _ if !has_credentials(url.cloud) => without_credentials(url, action, &said),
        _ => format!("{action} failed; check {}: {said}", endpoint(url.cloud)),
    }
}

fn without_credentials(url: &BucketUrl, action: &str, said: &str) -> String {
    format!("{action} failed, and the environment has no credentials; {}: {said}", credentials(url.cloud))
}

fn missing(url: &BucketUrl, said: &str) -> String {
    format!("the bucket {:?} does not exist; create it, or correct its name: {said}", url.bucket)
}

fn denied(url: &BucketUrl, action: &str, said: &str) -> String {
    format!("{action} was denied; {}, and allow them {}: {said}", credentials(url.cloud), permissions(url.cloud))
}

/// An error on one line, without the pages that some servers answer with.
pub(super) fn brief(error: &Error) -> String {
    let text = error.to_string();
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(600).collect()
}

fn credentials(cloud: Cloud) -> &'static str {
    match cloud {
        Cloud::S3 => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the pod or the machine a role (profiles in \
             ~/.aws are not read)"
        }
        Cloud::Gcs => {
            "set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account's key, or give the pod or the machine \
             a service account"
        }
        Cloud::Azure => {
            "set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_CLIENT_ID, AZURE_TENANT_ID and \
             AZURE_CLIENT_SECRET, or give the pod or the machine an identity"
        }
    }
}

fn permissions(cloud: Cloud) -> &'static str {
    match cloud {
        Cloud::S3 => {
            "s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject, s3:DeleteObject and \
             s3:AbortMultipartUpload on its objects"
        }
        Cloud::Gcs => "the role Storage Object User (roles/storage.objectUser) on the bucket",
        Cloud::Azure => "the role Storage Blob Data Contributor on the container",
    }
}

fn endpoint(cloud: Cloud) -> &'static str {
    match cloud {
        Cloud::S3 => "that AWS_REGION, or AWS_ENDPOINT_URL (with AWS_ALLOW_HTTP=true for http://), is the bucket's",
        Cloud::Gcs => "that storage.googleapis.com can be reached",
        Cloud::Azure => "that AZURE_STORAGE_ACCOUNT_NAME is the container's account and can be reached",
    }
}

/// Whether the environment names credentials; otherwise the machine's metadata service is asked for them.
fn has_credentials(cloud: Cloud) -> bool {
    let names: &[&str] = match cloud {
        Cloud::S3 => &[
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_SKIP_SIGNATURE",
        ],
        Cloud::Gcs => &[
            "GOOGLE_APPLICATION_CREDENTIALS",
            "GOOGLE_SERVICE_ACCOUNT",
            "GOOGLE_SERVICE_ACCOUNT_PATH",
            "SERVICE_ACCOUNT",
            "GOOGLE_SKIP_SIGNATURE",
        ],
        Cloud::Azure => &["AZURE_FEDERATED_TOKEN_FILE", "AZURE_USE_AZURE_CLI", "AZURE_SKIP_SIGNATURE"],
    };
    names.iter().chain(cloud.secrets()).any(|name| std::env::var_os(name).is_some())
}

#[cfg(all(test, not(feature = "cloud")))]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_object_storage_says_so() {
        let url = BucketUrl { cloud: Cloud::S3, bucket: "b".into(), prefix: String::new() };
        let error = connect(&url).expect_err("it cannot");
        assert!(error.contains("cargo feature `cloud`") && error.contains("file:///"), "{error}");
    }
}
