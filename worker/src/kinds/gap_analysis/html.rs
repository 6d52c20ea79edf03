//! Extracts the text and the links of an HTML page from its tokens: no tree is built, so deeply nested tags cost
//! nothing.
use std::cell::RefCell;

use html5ever::tendril::StrTendril;
use html5ever::tokenizer::states::RawKind::{Rawtext, Rcdata, ScriptData};
use html5ever::tokenizer::{BufferQueue, Tag, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer};

use super::prose::Prose;

/// The maximum number of links kept of a page.
const LINKS_MAX: usize = 10_000;
/// Characters passed to the tokenizer at once: it copies them.
const PIECE_BYTES: usize = 16 << 10;
/// Tags within a sentence; all others end it.
const INLINE: [&str; 34] = [
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "br", "cite", "code", "data", "del", "dfn", "em", "font", "i",
    "img", "ins", "kbd", "label", "mark", "q", "s", "samp", "small", "span", "strong", "sub", "sup", "time", "tt", "u",
    "var", "wbr",
];
/// Tags whose text is not part of the page's text.
const HIDDEN: [&str; 9] = ["script", "style", "noscript", "template", "svg", "textarea", "select", "title", "iframe"];

/// Reads a page: its text goes to `prose`, its links, as written, to `links`. Returns its `base`.
pub(super) fn read(page: &str, prose: &mut Prose, links: &mut Vec<String>) -> Option<String> {
    let reader = Reader { state: RefCell::new(State { prose, links, base: None, hidden: None }) };
    let (tokenizer, queue) = (Tokenizer::new(reader, Default::default()), BufferQueue::default());
    let mut rest = page;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(PIECE_BYTES));
        queue.push_back(StrTendril::from_slice(piece));
        while !queue.is_empty() {
            let _ = tokenizer.feed(&queue);
        }
        rest = after;
    }
    tokenizer.end();
    tokenizer.sink.state.borrow_mut().base.take()
}

struct Reader<'a> {
    state: RefCell<State<'a>>,
}

struct State<'a> {
    prose: &'a mut Prose,
    links: &'a mut Vec<String>,
    base: Option<String>,
    /// The tag whose text is skipped, and how many of it are open.
    hidden: Option<(String, usize)>,
}

impl TokenSink for Reader<'_> {
    type Handle = ();

    fn process_token(&self, token: Token, _: u64) -> TokenSinkResult<()> {
        let mut state = self.state.borrow_mut();
        match token {
            Token::CharacterTokens(text) if state.hidden.is_none() => {
                text.chars().for_each(|character| state.prose.push(character));
            }
            Token::TagToken(tag) => return state.tag(&tag),
            _ => {}
        }
        TokenSinkResult::Continue
    }
}

impl State<'_> {
    fn tag(&mut self, tag: &Tag) -> TokenSinkResult<()> {
        let name: &str = &tag.name;
        let is_start = tag.kind == TagKind::StartTag;
        if name == "br" {
            self.prose.push(' ');
        } else if !INLINE.contains(&name) {
            self.prose.end_block();
        }
        self.track_hidden(name, is_start, tag.self_closing);
        if !is_start {
            return TokenSinkResult::Continue;
        }
        let href = || tag.attrs.iter().find(|attribute| &*attribute.name.local == "href").map(|href| href.value.trim());
        match name {
            "a" | "area" if self.hidden.is_none() && self.links.len() < LINKS_MAX => {
                self.links.extend(href().map(str::to_owned));
            }
            "base" if self.base.is_none() => self.base = href().map(str::to_owned),
            _ => {}
        }
        match name {
            "script" => TokenSinkResult::RawData(ScriptData),
            "style" | "xmp" | "iframe" | "noembed" | "noframes" => TokenSinkResult::RawData(Rawtext),
            "textarea" | "title" => TokenSinkResult::RawData(Rcdata),
            "plaintext" => TokenSinkResult::Plaintext,
            _ => TokenSinkResult::Continue,
        }
    }

    /// Tracks the hidden tag.
    fn track_hidden(&mut self, name: &str, is_start: bool, self_closing: bool) {
        match &mut self.hidden {
            Some((hidden, depth)) if hidden == name => {
                *depth = if is_start { *depth + 1 } else { *depth - 1 };
                if *depth == 0 {
                    self.hidden = None;
                }
            }
            None if is_start && HIDDEN.contains(&name) && !(name == "svg" && self_closing) => {
                self.hidden = Some((name.to_owned(), 1));
            }
            _ => {}
        }
    }
}
