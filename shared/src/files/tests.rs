use std::time::Duration;

use futures_util::TryStreamExt;

use super::*;
use crate::limits::FILE_PART_BYTES;

async fn store() -> (tempfile::TempDir, FileStore) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = FileStore::open(folder.path().join("files"), |_| async { Ok("me".to_owned()) }).await.expect("a store");
    (folder, store)
}

fn id(text: &str) -> JobId {
    JobId::parse(text).expect("an id")
}

async fn put(store: &FileStore, job: &str, place: Place, name: &str, content: &[u8]) -> FileEntry {
    let mut writer = store.create(&id(job), place, name).await.expect("a writer");
    for piece in content.chunks(100_000) {
        writer.push(&Bytes::copy_from_slice(piece)).await.expect("it is taken");
    }
    writer.finish("text/plain".into()).await.unwrap_or_else(|e| panic!("{name:?}: {e}"))
}

async fn get(store: &FileStore, job: &str, place: Place, name: &str, part: Option<Range<u64>>) -> Vec<u8> {
    let bytes: Vec<Bytes> =
        store.read(&id(job), place, name, part).await.expect("it is there").try_collect().await.expect("whole");
    bytes.concat()
}

/// Every path below the store but the one that names its owner.
fn left(store: &FileStore) -> Vec<String> {
    fn below(path: &Path, all: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            all.push(entry.path());
            below(&entry.path(), all);
        }
    }
    let mut all = Vec::new();
    below(store.root().expect("a folder"), &mut all);
    let relative =
        |path: &PathBuf| path.strip_prefix(store.root().expect("a folder")).expect("below").display().to_string();
    let mut all: Vec<String> = all.iter().map(relative).filter(|p| !p.starts_with(".leasehold")).collect();
    all.sort();
    all
}

#[tokio::test]
async fn what_is_written_is_read_whole_and_in_part() {
    let (_folder, store) = store().await;
    let content: Vec<u8> = (0..3 * FILE_PART_BYTES + 17).map(|n| (n % 251) as u8).collect();
    let entry = put(&store, "j", Place::Out(7), "a.bin", &content).await;
    assert_eq!((entry.bytes, entry.sha256.len()), (content.len() as u64, 64));
    assert_eq!(get(&store, "j", Place::Out(7), "a.bin", None).await, content);
    assert_eq!(get(&store, "j", Place::Out(7), "a.bin", Some(5..10)).await, content[5..10]);
    let end = content.len() as u64;
    assert_eq!(get(&store, "j", Place::Out(7), "a.bin", Some(end - 1..end)).await, content[content.len() - 1..]);
    let empty = put(&store, "j", Place::In, "empty", b"").await;
    assert_eq!(empty.sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(get(&store, "j", Place::In, "empty", None).await, b"");
    assert_eq!(store.size(&id("j"), Place::In, "empty").await.expect("a look"), Some(0));
    assert_eq!(store.size(&id("j"), Place::In, "none").await.expect("a look"), None);
    assert!(matches!(store.read(&id("j"), Place::In, "none", None).await, Err(FileError::Missing(_))));
}

#[tokio::test]
async fn odd_names_stand_where_they_belong() {
    let (_folder, store) = store().await;
    for name in [
        "a#1",
        "a#",
        "%2e%2e",
        "a%20b",
        "ä-水.pdf",
        "a b",
        "?x=1&y",
        "C:",
        "-rf",
        " ",
        "[*]",
        "\"'",
        "~",
        &"x".repeat(200),
    ] {
        put(&store, "j", Place::In, name, name.as_bytes()).await;
    }
    for name in [
        "a#1",
        "a#",
        "%2e%2e",
        "a%20b",
        "ä-水.pdf",
        "a b",
        "?x=1&y",
        "C:",
        "-rf",
        " ",
        "[*]",
        "\"'",
        "~",
        &"x".repeat(200),
    ] {
        assert_eq!(get(&store, "j", Place::In, name, None).await, name.as_bytes(), "{name}");
    }
    assert!(
        left(&store).iter().all(|path| path.starts_with("j/in/") || path == "j/in" || path == "j"),
        "{:?}",
        left(&store)
    );
    for bad in ["..", "../x", "a/b", ""] {
        assert!(matches!(store.create(&id("j"), Place::In, bad).await, Err(FileError::Name(_))), "{bad}");
    }
}

#[tokio::test]
async fn a_write_that_breaks_off_leaves_nothing() {
    let (_folder, store) = store().await;
    let mut writer = store.create(&id("j"), Place::In, "a").await.expect("a writer");
    writer.push(&Bytes::from(vec![1; 2 * FILE_PART_BYTES])).await.expect("it is taken");
    assert_eq!(store.size(&id("j"), Place::In, "a").await.expect("a look"), None, "it is not seen before it is whole");
    writer.abort().await;
    assert_eq!(left(&store), ["j", "j/in"]);
    let mut writer = store.create(&id("j"), Place::In, "a").await.expect("a writer");
    let error = writer.push_all(&[1; 100][..], 99).await.expect_err("too large");
    assert!(matches!(error, FileError::OverLimit(_)), "{error}");
    drop(writer);
    store.remove(vec![id("j"), id("none")]).await;
    assert_eq!(left(&store), Vec::<String>::new());
}

#[tokio::test]
async fn a_smaller_tokens_output_goes_and_the_winners_stays() {
    let (_folder, store) = store().await;
    for token in [3, 9, 12] {
        put(&store, "j", Place::Out(token), "a", b"x").await;
    }
    store.remove_outputs_before(&id("j"), 9).await;
    assert_eq!(left(&store), ["j", "j/out", "j/out/12", "j/out/12/a", "j/out/9", "j/out/9/a"]);
    store.remove_output(&id("j"), 12).await;
    store.remove_outputs_before(&id("none"), 9).await;
    assert_eq!(left(&store), ["j", "j/out", "j/out/9", "j/out/9/a"]);
}

#[tokio::test]
async fn a_walk_sees_what_is_old_and_no_more() {
    let (_folder, store) = store().await;
    for job in ["a", "b", "c"] {
        put(&store, job, Place::Out(5), "x", b"x").await;
    }
    std::fs::create_dir(store.root().expect("a folder").join("no job's.name")).expect("made");
    let mut seen = Vec::new();
    let mut walk = store.walk(Duration::ZERO).await.expect("a walk");
    while let Some((old, rest)) = walk.next(2).await.expect("a step") {
        seen.extend(old);
        walk = rest;
    }
    seen.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(seen, ["a", "b", "c"].map(|job| OldFolder { id: id(job), tokens: vec![5] }));
    let walk = store.walk(Duration::from_secs(3_600)).await.expect("a walk");
    let (old, _) = walk.next(100).await.expect("a step").expect("folders");
    assert_eq!(old, [], "what was written just now may still be at work");
}
