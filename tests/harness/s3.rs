//! A real S3 server in the test's process, over a temporary folder, that can be stopped, deny operations and lose
//! replies.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3Result, s3_error};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::port::Port;

/// The bucket that every server has.
pub const BUCKET: &str = "files";
const KEY: &str = "leasehold-test";
const SECRET: &str = "leasehold-test-secret";

/// A running S3 server. Dropping it stops it.
pub struct S3Server {
    port: Port,
    folder: TempDir,
    service: S3Service,
    faults: Arc<Faults>,
    serving: Mutex<CancellationToken>,
}

/// What the server does wrong.
#[derive(Default)]
struct Faults {
    /// Operations that are denied, by their name in S3.
    denied: Mutex<BTreeSet<String>>,
    /// Replies to lose: the method, what is in the URL, and how many are left.
    lost: Mutex<Vec<(String, String, usize)>>,
}

impl S3Server {
    /// Starts a server with an empty bucket.
    ///
    /// # Panics
    /// When there is no port or no folder.
    pub fn start() -> S3Server {
        let folder = TempDir::with_prefix("leasehold-test-").expect("a temporary folder can be made");
        std::fs::create_dir(folder.path().join(BUCKET)).expect("a folder can be made in it");
        let faults = Arc::new(Faults::default());
        let mut builder = S3ServiceBuilder::new(FileSystem::new(folder.path()).expect("the folder is there"));
        builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
        builder.set_access(Access(Arc::clone(&faults)));
        let (service, serving) = (builder.build(), Mutex::new(CancellationToken::new()));
        let server = S3Server { port: Port::reserve(), folder, service, faults, serving };
        server.resume();
        server
    }

    /// The variables with which a process uses the bucket.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", format!("http://{}", self.port.address())),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ACCESS_KEY_ID", KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.into()),
        ]
    }

    /// Breaks all connections and accepts no more.
    pub fn stop(&self) {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner).cancel();
    }

    /// Serves again after [`S3Server::stop`].
    ///
    /// # Panics
    /// When the port is taken.
    pub fn resume(&self) {
        let stop = CancellationToken::new();
        *self.serving.lock().unwrap_or_else(PoisonError::into_inner) = stop.clone();
        let listener = self.port.listen().expect("the port is ours");
        let (service, faults) = (self.service.clone(), Arc::clone(&self.faults));
        let accepting = stop.clone();
        tokio::spawn(accepting.run_until_cancelled_owned(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (service, faults) = (service.clone(), Arc::clone(&faults));
                let answering = service_fn(move |request| answer(service.clone(), Arc::clone(&faults), request));
                tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
                    // A client that goes away is none of the server's business.
                    drop(Builder::new().serve_connection(TokioIo::new(socket), answering).await);
                }));
            }
        }));
    }

    /// Denies these operations, as `PutObject`, and no others.
    pub fn deny(&self, operations: &[&str]) {
        let denied = operations.iter().map(ToString::to_string).collect();
        *self.faults.denied.lock().unwrap_or_else(PoisonError::into_inner) = denied;
    }

    /// Loses the replies to the next `count` requests with this method and these words in their URL: they are carried
    /// out, and their connections break.
    pub fn lose_replies(&self, method: &str, words: &str, count: usize) {
        let mut lost = self.faults.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.push((method.into(), words.into(), count));
    }

    /// How many replies are still to be lost.
    pub fn replies_to_lose(&self) -> usize {
        self.faults.lost.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(.., left)| left).sum()
    }

    /// The path at which the server keeps an object.
    pub fn path(&self, key: &str) -> PathBuf {
        self.folder.path().join(BUCKET).join(key)
    }

    /// The names of all objects, sorted, but for those with which Leasehold marks the bucket.
    pub fn objects(&self) -> Vec<String> {
        let root = self.folder.path().join(BUCKET);
        let mut all = Vec::new();
        below(&root, &root, &mut all);
        all.retain(|key| !key.contains(".leasehold"));
        all.sort();
        all
    }

    /// The files of uploads that were neither completed nor aborted.
    pub fn unfinished(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.folder.path()).expect("the folder is there").flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(".upload")).collect()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn answer(service: S3Service, faults: Arc<Faults>, request: Request<Incoming>) -> io::Result<s3s::HttpResponse> {
    let is_lost = faults.loses(request.method().as_str(), &request.uri().to_string());
    let reply = service.call(request.map(s3s::Body::from)).await.map_err(|e| io::Error::other(format!("{e:?}")))?;
    if is_lost {
        // The body of this reply is what completes the operation.
        use http_body_util::BodyExt;
        drop(reply.into_body().collect().await);
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    Ok(reply)
}

impl Faults {
    fn loses(&self, method: &str, url: &str) -> bool {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let rule = lost.iter_mut().find(|(m, words, left)| *left > 0 && m == method && url.contains(words.as_str()));
        rule.map(|(.., left)| *left -= 1).is_some()
    }
}

struct Access(Arc<Faults>);

#[async_trait::async_trait]
impl S3Access for Access {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let is_denied = {
            let denied = self.0.denied.lock().unwrap_or_else(PoisonError::into_inner);
            denied.contains(context.s3_op().name())
        };
        if context.credentials().is_none() || is_denied {
            return Err(s3_error!(AccessDenied, "denied by the test"));
        }
        Ok(())
    }
}

fn below(root: &Path, folder: &Path, all: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            below(root, &path, all);
        } else {
            all.push(path.strip_prefix(root).expect("below").display().to_string());
        }
    }
}
