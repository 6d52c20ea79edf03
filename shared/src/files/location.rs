//! Where the files of jobs are: a local folder, or a bucket of an object store.
use std::fmt;
use std::path::PathBuf;

use super::folder;

/// The place that a `storage_url` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A folder of this machine, `file:///…`.
    Folder(PathBuf),
    /// A bucket, `s3://…`, `gs://…` or `az://…`.
    Bucket(BucketUrl),
}

/// A bucket and the prefix of all names in it that Leasehold uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketUrl {
    /// Who keeps it.
    pub cloud: Cloud,
    /// Its name; at Azure, of the container.
    pub bucket: String,
    /// The prefix, without a slash at its ends; empty: the whole bucket is Leasehold's.
    pub prefix: String,
}

/// A kind of object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon S3, and servers that are compatible with it.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

impl Cloud {
    fn scheme(self) -> &'static str {
        match self {
            Cloud::S3 => "s3",
            Cloud::Gcs => "gs",
            Cloud::Azure => "az",
        }
    }

    /// The variables that may hold a secret of this store. Commands that a worker runs do not get them.
    pub fn secrets(self) -> &'static [&'static str] {
        match self {
            Cloud::S3 => &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_TOKEN"],
            Cloud::Gcs => &["GOOGLE_SERVICE_ACCOUNT_KEY"],
            Cloud::Azure => &[
                "AZURE_STORAGE_ACCOUNT_KEY",
                "AZURE_STORAGE_ACCESS_KEY",
                "AZURE_STORAGE_MASTER_KEY",
                "AZURE_STORAGE_SAS_KEY",
                "AZURE_STORAGE_SAS_TOKEN",
                "AZURE_STORAGE_TOKEN",
                "AZURE_STORAGE_CLIENT_SECRET",
                "AZURE_CLIENT_SECRET",
            ],
        }
    }
}

impl Location {
    /// The location that a `storage_url` names.
    ///
    /// # Errors
    /// A sentence with what to write.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let cloud = match scheme {
            "file" => return folder::path_of(url).map(Self::Folder),
            "s3" => Cloud::S3,
            "gs" => Cloud::Gcs,
            "az" => Cloud::Azure,
            _ => {
                return Err(format!(
                    "storage_url is {url:?}: its scheme is not known; write file:///an/absolute/folder, \
                     s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"
                ));
            }
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let refuse = |why: &str| Err(format!("storage_url is {url:?}: {why}; write {scheme}://bucket/prefix"));
        let fits = |text: &str, others: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c));
        if bucket.is_empty() {
            return refuse("the bucket is missing");
        }
        if !fits(bucket, "-_.") {
            return refuse(
                "the bucket's name may have letters, digits, -, _ and . (credentials and endpoints are set \
                           in the environment, not in the URL)",
            );
        }
        if !fits(prefix, "-_./=") {
            return refuse("the prefix may have letters, digits, -, _, ., = and /");
        }
        if !prefix.is_empty() && prefix.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return refuse("the prefix has an empty part, . or .. in it");
        }
        Ok(Self::Bucket(BucketUrl { cloud, bucket: bucket.into(), prefix: prefix.into() }))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::Bucket(url) => url.fmt(f),
        }
    }
}

impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.cloud.scheme(), self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_folder_or_a_bucket() {
        assert_eq!(Location::parse("file:///srv/files"), Ok(Location::Folder("/srv/files".into())));
        for (url, cloud, bucket, prefix) in [
            ("s3://b", Cloud::S3, "b", ""),
            ("s3://my.bucket-1/", Cloud::S3, "my.bucket-1", ""),
            ("gs://b/a/b=c/", Cloud::Gcs, "b", "a/b=c"),
            ("az://container/x", Cloud::Azure, "container", "x"),
        ] {
            let expected = BucketUrl { cloud, bucket: bucket.into(), prefix: prefix.into() };
            assert_eq!(Location::parse(url), Ok(Location::Bucket(expected)), "{url}");
        }
        assert_eq!(Location::parse("s3://b/a/").expect("a bucket").to_string(), "s3://b/a");
    }

    #[test]
    fn a_wrong_url_gets_a_sentence_with_what_to_write() {
        for (bad, said) in [
            ("", "scheme"),
            ("/srv/files", "write file:///"),
            ("ftp://host/x", "s3://bucket/prefix"),
            ("S3://b", "scheme"),
            ("s3:b", "scheme"),
            ("s3://", "bucket is missing"),
            ("gs:///prefix", "write gs://bucket/prefix"),
            ("s3://key:secret@b/x", "environment"),
            ("s3://b/a//b", "empty part"),
            ("s3://b/../a", "empty part, . or .."),
            ("s3://b///", "empty part"),
            ("s3://b/a b", "the prefix may have"),
            ("az://c/a%20b", "the prefix may have"),
            ("s3://b?x=y", "may have letters"),
        ] {
            let error = Location::parse(bad).expect_err(bad);
            assert!(error.contains(said), "{bad}: {error}");
        }
    }
}
