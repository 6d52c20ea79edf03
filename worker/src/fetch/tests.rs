//! The guard and the bounds, against servers of the tests' own.
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

/// Answers every request with the same bytes, then closes; counts the connections.
async fn server(at: Ipv4Addr, answer: Vec<u8>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((at, 0)).await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let answer = answer.clone();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(&answer).await;
            });
        }
    });
    (address, count)
}

fn page(head: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

fn redirect(to: &str) -> Vec<u8> {
    page(&format!("302 Found\r\nlocation: {to}"), b"")
}

/// Goes nowhere private but to 127.0.0.1.
fn guarded() -> Fetcher {
    let besides = Some(Ipv4Addr::LOCALHOST.into());
    Fetcher { gate: Gate { allow_private: false, besides }, client: Arc::default() }
}

async fn refused(fetcher: &Fetcher, text: &str) -> FetchError {
    fetcher.fetch(&url(text)).await.expect_err(text)
}

#[tokio::test]
async fn addresses_and_names_that_are_private_are_never_connected_to() {
    let (address, count) = server(Ipv4Addr::LOCALHOST, page("200 OK", b"secret")).await;
    let (fetcher, port) = (Fetcher::new(false), address.port());
    let hosts =
        ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]", "0.0.0.0", "LOCALHOST"];
    for host in hosts {
        let error = refused(&fetcher, &format!("http://{host}:{port}/")).await;
        assert!(matches!(error, FetchError::Private(_)), "{host}: {error}");
        assert!(error.to_string().contains("LEASEHOLD_FETCH__ALLOW_PRIVATE=true") && !error.is_retryable());
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
    for host in ["127.0.0.1", "localhost"] {
        let fetched = Fetcher::new(true).fetch(&url(&format!("http://{host}:{port}/"))).await.unwrap();
        assert_eq!(fetched.body, b"secret");
    }
}

#[tokio::test]
async fn a_redirect_is_judged_as_the_first_url_was() {
    let (secret, count) = server(Ipv4Addr::new(127, 0, 0, 2), page("200 OK", b"secret")).await;
    for host in ["127.0.0.2", "[::ffff:127.0.0.2]", "2130706434"] {
        let (from, _) = server(Ipv4Addr::LOCALHOST, redirect(&format!("http://{host}:{}/", secret.port()))).await;
        let error = refused(&guarded(), &format!("http://{from}/")).await;
        assert!(matches!(error, FetchError::Private(_)), "{host}: {error}");
    }
    for to in ["http://169.254.169.254/latest/meta-data/", "//10.0.0.1/", "http://[fd00:ec2::254]/"] {
        let (from, _) = server(Ipv4Addr::LOCALHOST, redirect(to)).await;
        assert!(matches!(refused(&guarded(), &format!("http://{from}/")).await, FetchError::Private(_)), "{to}");
    }
    for to in ["file:///etc/passwd", "gopher://127.0.0.1/", "http://user:pass@127.0.0.1/", "http://["] {
        let (from, _) = server(Ipv4Addr::LOCALHOST, redirect(to)).await;
        assert!(matches!(refused(&guarded(), &format!("http://{from}/")).await, FetchError::Url(_)), "{to}");
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn redirects_end() {
    let (target, _) = server(Ipv4Addr::LOCALHOST, page("200 OK\r\ncontent-type: text/plain", b"there")).await;
    let (from, _) = server(Ipv4Addr::LOCALHOST, redirect(&format!("http://{target}/x"))).await;
    let fetched = guarded().fetch(&url(&format!("http://{from}/"))).await.unwrap();
    assert_eq!(
        (fetched.url.as_str(), fetched.content_type.as_str()),
        (format!("http://{target}/x").as_str(), "text/plain")
    );
    let (ring, count) = server(Ipv4Addr::LOCALHOST, redirect("/again")).await;
    assert_eq!(refused(&guarded(), &format!("http://{ring}/")).await, FetchError::Redirects);
    assert_eq!(count.load(Ordering::SeqCst), limits::FETCH_REDIRECTS_MAX + 1);
}

#[tokio::test]
async fn what_is_too_large_is_cut_off() {
    let most = limits::FETCH_BYTES_MAX;
    let (said, _) =
        server(Ipv4Addr::LOCALHOST, format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", most + 1).into()).await;
    assert_eq!(refused(&guarded(), &format!("http://{said}/")).await, FetchError::TooLarge);
    let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    endless.resize(usize::try_from(most).unwrap() + 1_000_000, b'x');
    let (endless, _) = server(Ipv4Addr::LOCALHOST, endless).await;
    assert_eq!(refused(&guarded(), &format!("http://{endless}/")).await, FetchError::TooLarge);
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    bomb.write_all(&vec![0; usize::try_from(most).unwrap() + 1]).unwrap();
    let (bomb, _) =
        server(Ipv4Addr::LOCALHOST, page("200 OK\r\ncontent-encoding: gzip", &bomb.finish().unwrap())).await;
    assert_eq!(refused(&guarded(), &format!("http://{bomb}/")).await, FetchError::TooLarge);
}

#[tokio::test]
async fn what_is_packed_is_unpacked_or_named() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(b"words").unwrap();
    let packed = packed.finish().unwrap();
    let (good, _) = server(Ipv4Addr::LOCALHOST, page("200 OK\r\ncontent-encoding: gzip", &packed)).await;
    assert_eq!(guarded().fetch(&url(&format!("http://{good}/"))).await.unwrap().body, b"words");
    for (encoding, named) in [("gzip", "damaged gzip"), ("br", "br")] {
        let (bad, _) =
            server(Ipv4Addr::LOCALHOST, page(&format!("200 OK\r\ncontent-encoding: {encoding}"), b"no")).await;
        assert_eq!(refused(&guarded(), &format!("http://{bad}/")).await, FetchError::Packed(named.to_owned()));
    }
}

#[tokio::test]
async fn what_may_be_better_later_is_told_from_what_may_not() {
    for (status, is_retryable) in [
        ("404 Not Found", false),
        ("403 Forbidden", false),
        ("500 Internal Server Error", true),
        ("503 Service Unavailable", true),
        ("429 Too Many Requests", true),
    ] {
        let (from, _) = server(Ipv4Addr::LOCALHOST, page(status, b"")).await;
        let error = refused(&guarded(), &format!("http://{from}/")).await;
        assert_eq!((error.to_string(), error.is_retryable()), (format!("answered {status}"), is_retryable));
    }
    let (short, _) = server(Ipv4Addr::LOCALHOST, b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort".to_vec()).await;
    let (garbage, _) = server(Ipv4Addr::LOCALHOST, b"no http at all\r\n\r\n".to_vec()).await;
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    for host in [short.to_string(), garbage.to_string(), free.to_string()] {
        let error = refused(&guarded(), &format!("http://{host}/")).await;
        assert!(matches!(error, FetchError::Unreachable(_)) && error.is_retryable(), "{error}");
        assert!(!error.to_string().contains("http://"), "the URL is said once: {error}");
    }
}
