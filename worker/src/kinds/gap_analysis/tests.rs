//! What is found in documents, what supports what, and what a checkpoint holds.
use std::fs;
use std::path::Path;

use super::document::{self, Document};
use super::*;

fn fetched(content_type: &str, body: &[u8]) -> Result<Document, String> {
    let url = Url::parse("https://example.org/papers/one").unwrap();
    Ok(document::read(body.to_vec(), content_type)?.at(url))
}

fn statements(text: &str) -> Vec<String> {
    fetched("text/plain", text.as_bytes()).unwrap().statements
}

fn links(document: &Document) -> Vec<&str> {
    document.links.iter().map(Url::as_str).collect()
}

#[test]
fn every_sort_of_gap_is_found() {
    for sentence in [
        "The role of sleep in memory remains unclear.",
        "Its origin remains largely unknown to biologists.",
        "How tides drive mixing remains to be determined.",
        "Long-term effects of the drug have not been studied.",
        "The interaction has never been systematically tested in children.",
        "Its toxicity has yet to be established in humans.",
        "These effects haven\u{2019}t been shown in mice.",
        "The pathway is still poorly understood in plants.",
        "Why the current stops is not well understood.",
        "Little is known about deep sea corals.",
        "No study has compared the two harbours.",
        "Few studies have looked at winter fog.",
        "There is little evidence for this in birds.",
        "There is a lack of data on small ports.",
        "We found a gap in the literature on tides.",
        "Further research is needed on harbour noise.",
        "More studies are required to settle the dose.",
        "Future studies should include older patients.",
        "This question deserves further investigation in the field.",
        "Extending the method to graphs is future work.",
        "Whether the bound is tight is an open question.",
        "It is unclear whether caffeine helps sleep.",
        "Rural ports are under-studied in this field.",
    ] {
        assert_eq!(statements(sentence), [sentence]);
    }
}

#[test]
fn what_says_something_known_is_no_gap() {
    let known = "Sleep helps memory, as many studies have shown. The future of work is bright. The sky was clear. We open the \
        question with a prayer. He remains in office. The unknown soldier lies here. Data were studied. Water has been tested.";
    assert_eq!(statements(known), Vec::<String>::new());
    assert_eq!(statements("Future work"), Vec::<String>::new(), "a heading");
}

#[test]
fn sentences_are_told_apart_by_their_ends() {
    let text = "Dr. A. Smith et al. (see Fig. 3, i.e. the map) say the cause remains unclear. It is 3.5 km long! \"The depth \
        remains unknown to us.\" Is it so? The cost of vs. the gain from dredging has not been\nstudied in small har-\nbours \
        [3].\n\nNext steps remain to be agreed upon";
    assert_eq!(
        statements(text),
        [
            "Dr. A. Smith et al. (see Fig. 3, i.e. the map) say the cause remains unclear.",
            "\"The depth remains unknown to us.\"",
            "The cost of vs. the gain from dredging has not been studied in small harbours [3].",
            "Next steps remain to be agreed upon",
        ]
    );
    let long = format!("The cause remains unclear {}.", "and so on ".repeat(200));
    assert!(statements(&long)[0].len() <= 600);
    let endless = "word ".repeat(100_000) + ". The cause of it all remains unclear.";
    assert_eq!(statements(&endless), ["The cause of it all remains unclear."]);
}

#[test]
fn a_page_gives_its_text_and_its_links() {
    let page = br##"<!DOCTYPE html><html><head><title>It remains unclear what titles are for.</title><base href="/base/">
        <style>p { content: "It remains unclear what styles are for." }</style>
        <script>if (a < b) { x = "<p>It remains unclear what scripts are for.</p>" }</script></head>
        <body><h1>Future work</h1><p>The <b>cause</b> of <a href="two#part">the
        drift</a> remains&nbsp;unclear<sup>[1]</sup>. Known.</p><div>No end<ul><li>The first item has not been tested<li>x</ul>
        <noscript><p>It remains unclear who reads this.</p></noscript>
        <a href=" https://other.example/x?a=1&amp;b=2 ">x</a> <a href="mailto:a@b.c">m</a> <a href="javascript:x()">j</a>
        <a href="two">again</a> <a name="x">none</a> <area href="../up"></div>"##;
    let document = fetched("", page).unwrap();
    assert_eq!(
        document.statements,
        ["The cause of the drift remains unclear[1].", "The first item has not been tested"]
    );
    let wanted = [
        "https://example.org/base/two#part",
        "https://other.example/x?a=1&b=2",
        "https://example.org/base/two",
        "https://example.org/up",
    ];
    assert_eq!(links(&document), wanted);
}

#[test]
fn documents_are_told_by_their_content() {
    let text = "The caf\u{e9} effect remains unclear.";
    let latin: Vec<u8> = text.chars().map(|c| u8::try_from(c).unwrap()).collect();
    let page = |meta: &str| [format!("<html><head>{meta}</head><p>").as_bytes(), &latin].concat();
    let russian =
        encoding_rs::WINDOWS_1251.encode("Future work: \u{43c}\u{43e}\u{440}\u{435} and its tides.").0.into_owned();
    for (content_type, body, wanted) in [
        ("application/octet-stream", text.as_bytes().to_vec(), text),
        ("text/plain", latin.clone(), text),
        ("text/html", page(""), text),
        ("text/html; charset=iso-8859-1", page(""), text),
        ("text/html", page("<meta charset=\"latin1\">"), text),
        ("text/plain", page(""), text),
        ("text/html", text.as_bytes().to_vec(), text),
        ("text/plain; charset=windows-1251", russian, "Future work: \u{43c}\u{43e}\u{440}\u{435} and its tides."),
    ] {
        let document = fetched(content_type, &body).unwrap();
        assert_eq!(document.statements, [wanted], "{content_type}");
    }
    let wide: Vec<u16> = format!("<!doctype html><p>{text}").encode_utf16().collect();
    let little: Vec<u8> = wide.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    let big: Vec<u8> = wide.iter().flat_map(|unit| unit.to_be_bytes()).collect();
    for (content_type, body) in [
        ("text/html", [b"\xFF\xFE", little.as_slice()].concat()),
        ("text/html; charset=utf-8", [b"\xFE\xFF", big.as_slice()].concat()),
        ("text/html; charset=utf-16le", little.clone()),
        ("", big),
        ("text/html", format!("<!doctype html><meta charset=utf-16><p>{text}").into_bytes()),
    ] {
        assert_eq!(fetched(content_type, &body).unwrap().statements, [text], "{content_type}");
    }
    for body in [b"\x7fELF\0\0\x01".as_slice(), b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", &[0; 100]] {
        let fault = fetched("text/html", body).expect_err("no text");
        assert!(fault.contains("neither HTML, text nor PDF"), "{fault}");
    }
    assert!(fetched("text/plain", b"").unwrap().statements.is_empty());
}

#[test]
fn a_pdf_is_read_and_a_broken_one_refused() {
    let documents = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/process-files/documents");
    let pdf = fs::read(documents.join("harbour-rules.pdf")).unwrap();
    assert!(fetched("text/html", &pdf).is_ok(), "by its content, whatever it is called");
    let fault = fetched("application/pdf", &pdf[..pdf.len() / 2]).expect_err("cut off");
    assert!(fault.contains("cannot be read"), "{fault}");
}

#[test]
fn urls_in_a_text_are_what_it_refers_to() {
    let text = "See https://a.example/x. Also (http://b.example/y_(z)), <https://c.example/?q=1>; \"http://d.example\" and \
        [https://e.example/f]. Not ftp://g.example or https:// alone.";
    let document = fetched("text/plain", text.as_bytes()).unwrap();
    let wanted = [
        "https://a.example/x",
        "http://b.example/y_(z)",
        "https://c.example/?q=1",
        "http://d.example/",
        "https://e.example/f",
    ];
    assert_eq!(links(&document), wanted);
}

#[test]
fn a_page_made_to_do_harm_ends() {
    let deep = "<div>".repeat(200_000) + "The cause of it remains unclear.";
    assert_eq!(fetched("text/html", deep.as_bytes()).unwrap().statements.len(), 1);
    let many = "<a href=x>The cause of it remains unclear.</a><p>".repeat(20_000);
    let document = fetched("text/html", many.as_bytes()).unwrap();
    assert!(document.links.len() <= 10_000 && document.statements.len() <= 300);
}

fn groups(documents: &[&[&str]]) -> Vec<(String, Vec<usize>)> {
    let documents: Vec<Vec<String>> =
        documents.iter().map(|list| list.iter().map(|text| (*text).to_owned()).collect()).collect();
    let found = support::groups(&documents, &|| false);
    found.into_iter().map(|group| (documents[group.leader.0][group.leader.1].clone(), group.documents)).collect()
}

#[test]
fn statements_on_the_same_thing_support_each_other() {
    let found = groups(&[
        &["The role of gut bacteria in depression remains unclear.", "Long-term safety has not been studied."],
        &["It is unclear which roles gut bacteria play in depression."],
        &[
            "Little is known about deep sea corals.",
            "How gut bacteria affect the role of depression remains to be seen.",
        ],
    ]);
    assert_eq!(found[0].1, [0, 1, 2], "{found:?}");
    assert_eq!(found.iter().map(|(_, documents)| documents.len()).collect::<Vec<_>>(), [3, 1, 1], "{found:?}");
}

#[test]
fn a_cue_alone_makes_nothing_the_same() {
    let found = groups(&[
        &["Further research is needed on harbour noise at night."],
        &["Further research is needed on vitamin doses in children."],
        &["The effect of harbour lamps on moths remains unclear."],
    ]);
    assert!(found.iter().all(|(_, documents)| documents.len() == 1), "{found:?}");
    for empty in
        ["Further research is needed.", "It remains unclear why this is so.", "More work is required in future."]
    {
        assert!(support::topic(empty).is_empty(), "{empty}: {:?}", support::topic(empty));
    }
}

#[test]
fn a_document_that_says_it_twice_counts_once() {
    let twice = [
        "The cause of the drift remains unclear.",
        "What causes the drift remains unclear.",
        "The drift's cause is unknown.",
    ];
    let found = groups(&[&twice, &["The cause of the drift is still unknown."]]);
    assert_eq!(found.iter().map(|(_, documents)| documents.clone()).collect::<Vec<_>>(), [vec![0, 1]], "{found:?}");
}

#[test]
fn payloads_are_refused_by_the_field() {
    let fetcher = Fetcher::new(false);
    let order = |url: &str, max_papers, validation_threshold| {
        Order::parse(&Payload { url: url.to_owned(), max_papers, validation_threshold }, &fetcher)
    };
    for (url, papers, threshold, named) in [
        ("ftp://a.example/", 1, 1, "payload.url"),
        ("file:///etc/passwd", 1, 1, "payload.url"),
        ("a.example/x", 1, 1, "payload.url"),
        ("", 1, 1, "payload.url"),
        ("http://user:pass@a.example/", 1, 1, "payload.url"),
        (&format!("http://a.example/{}", "x".repeat(3_000)), 1, 1, "payload.url"),
        ("http://a.example/", 0, 1, "payload.max_papers is 0; write 1 or more"),
        ("http://a.example/", 1, -1, "payload.validation_threshold is -1"),
    ] {
        let failure = order(url, papers, threshold).err().expect(url);
        assert!(failure.message.contains(named) && failure.code == ErrorCode::BadPayload, "{url}: {}", failure.message);
    }
    let Ok(order) = order("http://a.example/#part", i64::MAX, 3) else { panic!("it is valid") };
    assert_eq!((order.url.as_str(), order.papers, order.threshold), ("http://a.example/", limits::PAPERS_MAX, 3));
    let payload: Payload = serde_json::from_str(r#"{"url": "http://a.example/"}"#).unwrap();
    assert_eq!((payload.max_papers, payload.validation_threshold), (10, 2));
    assert!(serde_json::from_str::<Payload>(r#"{"url": "http://a.example/", "max_paper": 1}"#).is_err());
}

fn read(url: &str, statements: Vec<String>, links: &[String]) -> Document {
    let links = links.iter().map(|link| Url::parse(link).unwrap()).collect();
    Document { url: Url::parse(url).unwrap(), statements, links }
}

#[test]
fn what_a_document_refers_to_is_taken_once_and_in_order() {
    let first = Url::parse("http://a.example/").unwrap();
    let mut state = State::new(&first);
    let links = [
        "http://a.example/#top",
        "http://b.example/",
        "http://c.example/x#1",
        "http://b.example/#2",
        "http://d.example/",
    ];
    let links: Vec<Url> = links.iter().map(|link| Url::parse(link).unwrap()).collect();
    state.refer(&links, 2, 10_000);
    let urls: Vec<&str> = state.sources.iter().map(|source| source.url.as_str()).collect();
    assert_eq!(urls, ["http://a.example/", "http://b.example/", "http://c.example/x"]);
    state.record(0, read("http://a.example/", Vec::new(), &[]), 10_000);
    state.record(1, read("http://moved.example/", Vec::new(), &[]), 10_000);
    state.record(2, read("http://moved.example/", Vec::new(), &[]), 10_000);
    assert_eq!(state.read(), ["http://a.example/", "http://b.example/"]);
    let over = state.skipped_documents();
    assert!(over[0]["reason"].as_str().unwrap().contains("same document as http://b.example/"), "{over:?}");
}

/// The most of everything: as many documents as may be, long URLs, redirects, statements without end.
#[test]
fn a_checkpoint_keeps_to_its_bound_and_a_round_trip_to_its_content() {
    let room = leasehold::Limits::default().checkpoint_bytes;
    for length in [20, 300, 1_900] {
        let mut state = State::new(&Url::parse("http://a.example/").unwrap());
        let links: Vec<String> = (0..200).map(|n| format!("http://{n}.example/{}", "x".repeat(length))).collect();
        let urls: Vec<Url> = links.iter().map(|link| Url::parse(link).unwrap()).collect();
        state.refer(&urls, limits::PAPERS_MAX, room / 4);
        for at in 0..state.sources.len() {
            let statement =
                |n: usize| format!("\"q{at}\" The w{n} remains \\ {}", "y".repeat(if length == 20 { 1 } else { 500 }));
            let document = read(&format!("http://moved.example/{at}"), (0..300).map(statement).collect(), &[]);
            state.record(at, document, room / 8 * 3);
        }
        state.groups = support::groups(&state.statements(), &|| false);
        let text = serde_json::to_string(&state).unwrap();
        assert!(text.len() <= room, "{length}: {} of {room}, {} groups", text.len(), state.groups.len());
        let is_short = length == 20;
        assert!(!is_short || state.statements().iter().all(|list| !list.is_empty()), "every document keeps some");
        assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
    }
}
