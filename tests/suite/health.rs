//! `leasehold health`: what the health checks of containers run.
use std::time::Duration;

use leasehold_tests::{Output, Port, System, eventually, run};

const LIMIT: Duration = Duration::from_secs(30);

async fn health(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    run("leasehold", &[&["health"], arguments].concat(), environment, LIMIT).await
}

#[tokio::test]
async fn health_tells_a_ready_api_from_one_without_redis() {
    let system = System::start(&[]).await;
    let api = system.api(&[("LEASEHOLD_REDIS__OUTAGE_MS", "0")]).await;
    api.wait_ready().await;
    let address = api.url("");
    let listen = address.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let settings = [("LEASEHOLD_API__LISTEN", listen.as_str())];
    let ready = health(&[], &settings).await;
    assert_eq!((ready.status.code(), ready.stdout), (Some(0), format!("http://{listen}/readyz: ok\n")));
    system.redis().kill9();
    let unready = health(&[&address], &[]).await;
    assert_eq!((unready.status.code(), unready.stderr.lines().count()), (Some(1), 1), "{unready:?}");
    assert!(unready.stderr.contains("/readyz answers 503: "), "{unready:?}");
    let live = health(&["--live"], &settings).await;
    assert_eq!((live.status.code(), live.stdout), (Some(0), format!("http://{listen}/livez: ok\n")));
    system.redis().restart().await;
    system.finish().await;
}

#[tokio::test]
async fn health_asks_a_worker_where_it_listens() {
    let system = System::start(&[]).await;
    let port = Port::reserve();
    let listen = port.address().to_string();
    let worker = [("LEASEHOLD_WORKER__LISTEN", listen.as_str())];
    let absent = health(&["--worker"], &worker).await;
    assert_eq!(absent.status.code(), Some(1));
    assert!(absent.stderr.contains("/readyz does not answer: "), "{absent:?}");
    let _worker = system.worker(&worker);
    let everywhere = listen.replace("127.0.0.1", "0.0.0.0");
    eventually(LIMIT, "the worker is ready", async || {
        let output = health(&["--worker"], &[("LEASEHOLD_WORKER__LISTEN", &everywhere)]).await;
        if output.status.success() { Ok(output) } else { Err(output.stderr) }
    })
    .await;
    system.finish().await;
}

#[tokio::test]
async fn health_without_a_port_or_with_a_bad_address_says_what_to_write() {
    let unset = health(&["--worker"], &[]).await;
    assert_eq!(unset.status.code(), Some(1));
    assert!(unset.stderr.contains("worker.listen is unset"), "{unset:?}");
    for bad in ["127.0.0.1:8080", "nonsense", "file:///etc/passwd"] {
        let refused = health(&[bad], &[]).await;
        assert_eq!(refused.status.code(), Some(2), "{bad}: {refused:?}");
        assert!(refused.stderr.contains("http://127.0.0.1:8080"), "{bad}: {refused:?}");
    }
}
