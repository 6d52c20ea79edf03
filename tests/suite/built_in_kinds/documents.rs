//! Documents are read in processes of their own: what one of them does harms neither the worker nor other jobs.
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::site::{Page, Site, pdf};
use super::*;

/// What a worker may take at most whatever it reads, in bytes: it takes a few tens of MB at rest.
const WORKER_BYTES_MAX: u64 = 200 << 20;

/// A font with four billion widths: whoever stores them runs out of memory.
fn four_billion_widths() -> Vec<u8> {
    with_font("/W [0 4294967295 500]", "")
}

/// A map of four billion characters to spaces.
fn four_billion_characters() -> Vec<u8> {
    with_font("", "begincmap 1 beginbfrange <00000000> <FFFFFFFF> <0020> endbfrange endcmap")
}

fn with_font(widths: &str, map: &str) -> Vec<u8> {
    let font = "5 0 obj\n<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>";
    let composite = format!(
        "5 0 obj\n<< /Type /Font /Subtype /Type0 /BaseFont /X /Encoding /Identity-H /ToUnicode 7 0 R \
         /DescendantFonts [<< \
         /Type /Font /Subtype /CIDFontType2 /BaseFont /X {widths} >>] >>\nendobj\n\
         7 0 obj\n<< /Length {} >>\nstream\n{map}\nendstream",
        map.len()
    );
    String::from_utf8(pdf("text")).unwrap().replace(font, &composite).into_bytes()
}

/// A document that takes minutes to read: a few MiB of operators, on a thousand pages.
fn endless() -> Vec<u8> {
    let content = "q Q ".repeat(1 << 20);
    let kids = "3 0 R ".to_owned() + &(10..1010).map(|id| format!("{id} 0 R ")).collect::<String>();
    let page = |id: u32| format!("{id} 0 obj\n<< /Type /Page /Parent 2 0 R /Contents 4 0 R >>\nendobj\n");
    let mut document = "%PDF-1.4\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n".to_owned();
    document += &format!("2 0 obj\n<< /Type /Pages /Kids [{kids}] /Count 1001 >>\nendobj\n");
    document += &std::iter::once(3).chain(10..1010).map(page).collect::<String>();
    document += &format!("4 0 obj\n<< /Length {} >>\nstream\n{content}\nendstream\nendobj\n", content.len());
    document += "trailer\n<< /Root 1 0 R >>\nstartxref\n0\n%%EOF\n";
    document.into_bytes()
}

/// A system with documents, and a worker for them.
struct Reading {
    five: Five,
    worker: Worker,
    temporary: tempfile::TempDir,
}

impl Reading {
    async fn start(documents: &[(&str, &[u8])], concurrency: &str) -> Self {
        let five = Five::start(&[]).await;
        let root = five.system.folder().join("documents");
        std::fs::create_dir(&root).unwrap();
        for (name, content) in documents {
            std::fs::write(root.join(name), content).unwrap();
        }
        let temporary = tempfile::tempdir().unwrap();
        let worker = five.worker_with(&[
            ("LEASEHOLD_DOCUMENT_ROOT", root.to_str().unwrap()),
            ("LEASEHOLD_WORKER__CONCURRENCY", concurrency),
            ("LEASEHOLD_FETCH__ALLOW_PRIVATE", "true"),
            ("TMPDIR", temporary.path().to_str().unwrap()),
        ]);
        Self { five, worker, temporary }
    }

    async fn submit(&self, file: &str) -> JobId {
        let job = json!({ "kind": "process-files", "payload": { "file": file }, "max_attempts": 1 });
        let got = self.five.api.post("/api/v1/jobs", &job).await;
        assert_eq!(got.status, 202, "{}", got.text);
        JobId::parse(got.json["id"].as_str().unwrap()).unwrap()
    }

    /// The readers of the worker that run.
    fn readers(&self) -> Vec<Pid> {
        readers_of(self.worker.pid())
    }

    async fn reader(&self) -> Pid {
        eventually(SOON, "a document is being read", async || self.readers().first().copied()).await
    }

    /// Nothing of the readers is left, and the worker has stayed small and works.
    async fn check(self) {
        let id = self.submit("sound").await;
        assert_eq!(self.five.result(&id).await["words"], 1);
        eventually(SOON, "no reader is left", async || self.readers().is_empty()).await;
        assert!(self.worker.peak_bytes() < WORKER_BYTES_MAX, "{} bytes", self.worker.peak_bytes());
        let left: Vec<_> = std::fs::read_dir(self.temporary.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        self.five.system.finish().await;
    }
}

/// The processes that this one has started to read documents, zombies excluded.
fn readers_of(parent: u32) -> Vec<Pid> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let ids = processes.filter_map(|name| name.parse::<i32>().ok());
    ids.filter(|id| is_reader(&Path::new("/proc").join(id.to_string()), parent)).map(Pid::from_raw).collect()
}

fn is_reader(process: &Path, parent: u32) -> bool {
    let read = |name: &str| std::fs::read_to_string(process.join(name)).unwrap_or_default();
    let is_child = read("status").lines().any(|line| line.split_whitespace().eq(["PPid:", &parent.to_string()]));
    is_child && read("cmdline").starts_with("leasehold-reader\0")
}

#[tokio::test]
async fn a_document_that_takes_all_memory_ends_its_reader_and_not_the_worker() {
    let (widths, characters) = (four_billion_widths(), four_billion_characters());
    let documents: [(&str, &[u8]); 3] = [("widths", &widths), ("characters", &characters), ("sound", &pdf("text"))];
    let reading = Reading::start(&documents, "2").await;
    let (widths, characters) = (reading.submit("widths").await, reading.submit("characters").await);
    let (message, _) = reading.five.failure(&widths).await;
    assert_eq!(message, "File could not be read: widths: reading it needs more than 512 MiB of memory");
    let read = reading.five.ended(&characters).await;
    assert!(read.state == State::Completed, "{:?}", read.error);
    reading.check().await;
}

#[tokio::test]
async fn a_fetched_document_that_takes_all_memory_fails_its_analysis_for_good() {
    let site = Site::start(&[("/start", Page::Is("application/pdf", four_billion_widths()))]).await;
    let reading = Reading::start(&[("sound", &pdf("text"))], "2").await;
    let url = site.url("/start");
    let order = json!({ "url": url, "max_papers": 1, "validation_threshold": 1 });
    let id = reading.five.submit("gap-analysis", order).await;
    let wanted = format!("{url} cannot be read: reading it needs more than 512 MiB of memory");
    assert_eq!(reading.five.failure(&id).await, (wanted, 1));
    reading.check().await;
}

#[tokio::test]
async fn a_reader_that_is_killed_fails_the_attempt_and_says_so() {
    let endless = endless();
    let reading = Reading::start(&[("endless", &endless), ("sound", &pdf("text"))], "2").await;
    let id = reading.submit("endless").await;
    kill(reading.reader().await, Signal::SIGKILL).unwrap();
    let (message, _) = reading.five.failure(&id).await;
    let wanted = "the process that reads it was killed, perhaps for want of memory";
    assert_eq!(message, format!("File could not be read: endless: {wanted}"));

    let id = reading.submit("endless").await;
    let reader = reading.reader().await;
    kill(reader, Signal::SIGTERM).unwrap();
    assert!(is_reader(&Path::new("/proc").join(reader.to_string()), reading.worker.pid()), "the worker ends it");
    reading.five.cancelled_within(&id, SOON).await;
    reading.check().await;
}

#[tokio::test]
async fn no_reader_outlives_its_worker() {
    let endless = endless();
    let reading = Reading::start(&[("endless", &endless)], "1").await;
    let id = reading.submit("endless").await;
    let reader = reading.reader().await;
    let environment = std::fs::read(format!("/proc/{reader}/environ")).unwrap();
    assert!(environment.is_empty(), "it knows no secret: {}", String::from_utf8_lossy(&environment));
    reading.worker.kill9();
    let is_gone = async || {
        let status = std::fs::read_to_string(format!("/proc/{reader}/status")).unwrap_or_default();
        status.is_empty() || status.contains("State:\tZ")
    };
    eventually(SOON, "the reader ends", is_gone).await;
    reading.five.api.post(&format!("/api/v1/jobs/{id}/cancel"), &json!({})).await;
    reading.five.system.finish().await;
}

#[tokio::test]
async fn large_documents_are_not_in_the_workers_memory() {
    let text = b"word ".repeat(6 << 20);
    let sound = pdf("text");
    let reading = Reading::start(&[("large", &text), ("sound", &sound)], "8").await;
    let mut jobs = Vec::new();
    for _ in 0..8 {
        jobs.push(reading.submit("large").await);
    }
    for id in jobs {
        assert_eq!(reading.five.result(&id).await["words"], 6 << 20);
    }
    reading.check().await;
}
