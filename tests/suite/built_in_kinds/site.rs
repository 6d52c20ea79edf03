//! A web site of the test's own, which counts who asks for what, and can keep them waiting.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What a path answers.
#[derive(Clone)]
pub enum Page {
    /// 200, of this content type.
    Is(&'static str, Vec<u8>),
    /// Another status, and a line of the head.
    Status(&'static str, String),
    /// A body without an end, as fast as it is taken.
    Endless,
    /// A page that is sent once the gate is open.
    Gated(Box<Page>),
}

pub struct Site {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    gate: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
}

struct Shared {
    pages: BTreeMap<String, Page>,
    hits: Mutex<BTreeMap<String, usize>>,
    /// Requests that wait at the gate: now, and the most at any time.
    waiting: Mutex<(usize, usize)>,
}

impl Site {
    pub async fn start(pages: &[(&str, Page)]) -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pages = pages.iter().map(|(path, page)| ((*path).to_owned(), page.clone())).collect();
        let shared = Arc::new(Shared { pages, hits: Mutex::default(), waiting: Mutex::default() });
        let (gate, open) = watch::channel(false);
        let serving = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (shared, open) = (Arc::clone(&shared), open.clone());
                    tokio::spawn(async move { serve(stream, &shared, open).await });
                }
            }
        });
        Site { address, shared, gate, serving }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn hits(&self, path: &str) -> usize {
        self.shared.hits.lock().unwrap().get(path).copied().unwrap_or(0)
    }

    /// Requests that wait at the gate now, and the most that ever did.
    pub fn waiting(&self) -> (usize, usize) {
        *self.shared.waiting.lock().unwrap()
    }

    pub fn open_gate(&self) {
        self.gate.send_replace(true);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared, open: watch::Receiver<bool>) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(count @ 1..) => request.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
    let path = String::from_utf8_lossy(&request).split(' ').nth(1).unwrap_or_default().to_owned();
    *shared.hits.lock().unwrap().entry(path.clone()).or_default() += 1;
    match shared.pages.get(&path).cloned() {
        Some(Page::Gated(page)) => {
            if pass(&mut stream, shared, open).await {
                send(&mut stream, &page).await;
            }
        }
        Some(page) => send(&mut stream, &page).await,
        None => send(&mut stream, &Page::Status("404 Not Found", "x-none: 1".to_owned())).await,
    }
}

/// Waits for the gate; false when the client goes away first.
async fn pass(stream: &mut TcpStream, shared: &Shared, mut open: watch::Receiver<bool>) -> bool {
    {
        let mut waiting = shared.waiting.lock().unwrap();
        waiting.0 += 1;
        waiting.1 = waiting.1.max(waiting.0);
    }
    let mut byte = [0];
    let passed = tokio::select! {
        opened = open.wait_for(|open| *open) => opened.is_ok(),
        _ = stream.read(&mut byte) => false,
    };
    shared.waiting.lock().unwrap().0 -= 1;
    passed
}

async fn send(stream: &mut TcpStream, page: &Page) {
    let head = |status: &str, line: &str, length: usize| {
        format!("HTTP/1.1 {status}\r\n{line}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n").into_bytes()
    };
    let sent = match page {
        Page::Is(content_type, body) => {
            let head = head("200 OK", &format!("content-type: {content_type}"), body.len());
            stream.write_all(&[head, body.clone()].concat()).await
        }
        Page::Status(status, line) => stream.write_all(&head(status, line, 0)).await,
        Page::Endless => {
            let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n").await;
            while sent.is_ok() {
                sent = stream.write_all(&[b'x'; 64 << 10]).await;
            }
            sent
        }
        Page::Gated(_) => Ok(()),
    };
    if sent.is_ok() {
        let _ = stream.shutdown().await;
        // So that what was sent is read before a reset can overtake it.
        let _ = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut [0; 64])).await;
    }
}

/// A PDF of one page with this line.
pub fn pdf(line: &str) -> Vec<u8> {
    let content = format!("BT /F1 12 Tf 72 700 Td ({line}) Tj ET");
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>".to_owned(),
        format!("<< /Length {} >>\nstream\n{content}\nendstream", content.len()),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
    ];
    let (mut pdf, mut places) = ("%PDF-1.4\n".to_owned(), Vec::new());
    for (index, object) in objects.iter().enumerate() {
        places.push(pdf.len());
        pdf += &format!("{} 0 obj\n{object}\nendobj\n", index + 1);
    }
    let start = pdf.len();
    pdf += "xref\n0 6\n0000000000 65535 f \n";
    places.iter().for_each(|place| pdf += &format!("{place:010} 00000 n \n"));
    pdf += &format!("trailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n");
    pdf.into_bytes()
}
