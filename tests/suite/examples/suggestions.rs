//! `suggestions`: what a text could say better, and where.
use leasehold::State;
use leasehold_tests::Api;

use super::*;

/// What is suggested of a text: kinds and passages, in order; each passage is looked up at its position.
async fn suggested(five: &Five, api: &Api, text: &str) -> (Vec<(String, String)>, Value) {
    let answer = api.post("/api/suggestions", &json!({ "text": text })).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let job = five.ended(&id_of(&answer.json["job_id"])).await;
    assert_eq!(job.state, State::Completed, "{:?}", job.error);
    let result: Value = job.result.unwrap().to().unwrap();
    let characters: Vec<char> = text.chars().collect();
    let suggestions = result["suggestions"].as_array().unwrap().iter().enumerate().map(|(at, one)| {
        let [start, end] = ["start", "end"].map(|name| usize::try_from(one[name].as_u64().unwrap()).unwrap());
        let passage: String = characters[start..end].iter().collect();
        assert_eq!((one["text"].as_str(), one["id"].as_str()), (Some(&*passage), Some(&*(at + 1).to_string())));
        assert!(!one["message"].as_str().unwrap().is_empty());
        (one["kind"].as_str().unwrap().to_owned(), passage)
    });
    (suggestions.collect(), result)
}

#[tokio::test]
async fn passages_are_found_where_they_stand() {
    let five = Five::start(&[]).await;
    let api = five.api().await;
    let _worker = five.worker(&[]);
    let long = format!("{} end.", ["word"; 30].join(" "));
    let short = format!("{} end.", ["word"; 29].join(" "));
    for (text, expected) in [
        (
            "😀 The naïve report was not yet carefully written.",
            vec![("passive-voice", "was not yet carefully written")],
        ),
        ("We wrote it. It isn’t hard, and we need a hundred red ones.", vec![]),
        (
            "Several people came, a lot of them late.",
            vec![("vague-quantity", "Several"), ("vague-quantity", "a lot of")],
        ),
        ("An application programming interface (API) is here. APIs help.", vec![]),
        ("The API helps, and the API stays.", vec![("undefined-abbreviation", "API")]),
        ("Call the CLI (command line interface) by hand.", vec![]),
        ("READ THE MANUAL FIRST\n\nThen go.", vec![]),
        (&long, vec![("long-sentence", &*long)]),
        (&short, vec![]),
        // Neither a decimal nor an abbreviation ends a sentence; an empty line does.
        (&long.replacen("word word", "word, e.g. at 3.14 word", 1), vec![("long-sentence", "")]),
        (&long.replacen("word word", "word\n\nword", 1), vec![]),
        ("", vec![]),
        (" \n\u{a0}", vec![]),
    ] {
        let (found, result) = suggested(&five, &api, text).await;
        let whole = |passage: &str| if passage.is_empty() { text.to_owned() } else { passage.to_owned() };
        let expected: Vec<_> = expected.iter().map(|(kind, passage)| ((*kind).to_owned(), whole(passage))).collect();
        assert_eq!(found, expected, "{text}");
        assert!(result.get("truncated").is_none(), "{result}");
    }
    five.system.finish().await;
}

#[tokio::test]
async fn no_text_is_too_much_for_it() {
    let five = Five::start(&[]).await;
    let api = five.api().await;
    let _worker = five.worker(&[]);
    let bytes = 250_000;
    for (part, found) in
        [("many ", 50_001), ("😀 It was done. ", 13_888), ("!", 0), ("was  ", 1), ("ABC (", 1), ("e.g.", 1)]
    {
        let text = part.repeat(bytes / part.len());
        let (shown, result) = suggested(&five, &api, &text).await;
        assert_eq!(result["found"].as_u64().unwrap_or(shown.len() as u64), found, "{part}");
        assert_eq!(result["truncated"], if found > 500 { json!(true) } else { Value::Null }, "{part}");
        assert!(shown.len() <= 500, "{part}: {}", shown.len());
    }
    five.system.finish().await;
}

#[tokio::test]
async fn a_payload_that_is_none_fails_for_good() {
    let five = Five::start(&[]).await;
    let api = five.api().await;
    let _worker = five.worker(&[]);
    let cases = [
        (json!({}), "the payload has no text"),
        (json!([1]), "the payload has no text"),
        (json!({"text": 5}), "text is 5, which is no string"),
        (json!({"text": null}), "text is null, which is no string"),
    ];
    fail_for_good(&five, &api, "suggestions", &cases).await;
    five.system.finish().await;
}
