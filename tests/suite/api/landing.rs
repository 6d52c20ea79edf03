//! `GET /`: what a browser and a client are shown, with tokens and without.
use leasehold::tokens::{Scope, mint};
use leasehold_tests::Api;
use reqwest::{Method, Response};

use super::*;

/// Not compared with `openapi.json`, which may leave the page out.
async fn read(api: &Api, accept: &str) -> Response {
    api.request(Method::GET, "/").header("accept", accept).send().await.unwrap()
}

#[tokio::test]
async fn a_browser_is_sent_a_page_and_others_json() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    std::fs::write(&file, mint("ci", Scope::Read).unwrap().1).unwrap();
    for tokens in [None, file.to_str()] {
        let environment: Vec<_> = tokens.iter().map(|file| ("LEASEHOLD_API__TOKENS", *file)).collect();
        let system = System::start(&[]).await;
        let api = system.api(&environment).await;
        let page = read(&api, "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8").await;
        assert_eq!(page.status().as_u16(), 200);
        assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
        assert!(page.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
        let text = page.text().await.unwrap();
        for link in ["/openapi.json", "/api/v1/jobs", "/livez", "/readyz", "/metrics"] {
            assert!(text.contains(&format!("href=\"{link}\"")), "{link}: {text}");
        }
        assert!(text.contains(env!("CARGO_PKG_VERSION")) && !text.contains("://"), "no external resources: {text}");
        let index = read(&api, "*/*").await;
        assert_eq!(index.status().as_u16(), 200);
        assert_eq!(index.headers()["content-type"], "application/json");
        let index: Value = serde_json::from_str(&index.text().await.unwrap()).unwrap();
        assert_eq!(
            (index["name"].as_str(), index["version"].as_str()),
            (Some("Leasehold"), Some(env!("CARGO_PKG_VERSION")))
        );
        assert_eq!(index["openapi"], "/openapi.json");
        let head = api.request(Method::HEAD, "/").send().await.unwrap();
        assert_eq!(head.status().as_u16(), 200);
        let post = api.request(Method::POST, "/").send().await.unwrap();
        assert_eq!(post.status().as_u16(), if tokens.is_some() { 401 } else { 405 });
        system.finish().await;
    }
}
