//! A web site for a browser to look at: it counts what is asked for, and holds what it is told to.
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// On a free port of loopback; it ends with the test's runtime.
pub struct Site {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    asked: Mutex<HashMap<String, usize>>,
    gate: watch::Sender<bool>,
}

impl Site {
    pub async fn start() -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared { asked: Mutex::default(), gate: watch::channel(false).0 });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&serving), port));
            }
        });
        Site { port, shared }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// How often a path was asked for.
    pub fn asked(&self, path: &str) -> usize {
        self.shared.asked.lock().unwrap().get(path).copied().unwrap_or(0)
    }

    /// Answers what it holds: paths that begin with `/held`.
    pub fn open_gate(&self) {
        self.shared.gate.send_replace(true);
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>, port: u16) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let path = head.split(' ').nth(1)?.to_owned();
    *shared.asked.lock().unwrap().entry(path.clone()).or_default() += 1;
    if path.starts_with("/held") {
        shared.gate.subscribe().wait_for(|open| *open).await.ok()?;
    }
    let page = |text: &str| format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n{text}");
    let answer = match path.as_str() {
        "/hang" => std::future::pending().await,
        "/never" => page("<p>It waits for a picture.<img src=\"/hang\">"),
        "/held-paper" => page("<p>How the glass eel finds its river remains unclear.</p><a href=\"/paper\">before</a>"),
        "/paper" => page("<p>It remains unclear how the glass eel finds its river.</p>"),
        "/missing" => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "/moved" => {
            format!("HTTP/1.1 302 Found\r\nlocation: http://localhost:{port}/page\r\ncontent-length: 0\r\n\r\n")
        }
        "/away" => page("<script>location = 'https://no.such.host.invalid/'</script>"),
        path => page(&format!("<body style=\"background: teal\"><h1>{path}</h1>")),
    };
    stream.write_all(answer.as_bytes()).await.ok()?;
    stream.shutdown().await.ok()
}
