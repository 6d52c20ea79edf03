//! The tokens of the API: a file of `name scope sha256` lines, from which no token can be recovered.
//!
//! Each scope includes the one below: `admin` includes `submit`, and `submit` includes `read`. Two lines with one name
//! are one client with two tokens. To replace a token, add the new line, change the client, and remove the old line.
use std::fmt;
use std::path::Path;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::followed::Followed;
use crate::{Result, limits};

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Read everything.
    Read,
    /// Also submit jobs and items.
    Submit,
    /// Everything.
    Admin,
}

impl Scope {
    /// All scopes, the smallest first.
    pub const ALL: [Scope; 3] = [Scope::Read, Scope::Submit, Scope::Admin];

    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::Submit => "submit",
            Scope::Admin => "admin",
        }
    }

    /// The scope named by a word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == word)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a request is not admitted; the text is for its client.
#[derive(Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// It has no token, or one that is not known: 401.
    Unknown(&'static str),
    /// The token's scope is not sufficient: 403.
    Forbidden(String),
}

/// The tokens that an API accepts, at least one.
#[derive(Debug, PartialEq, Eq)]
pub struct Tokens(Vec<Line>);

#[derive(Debug, PartialEq, Eq)]
struct Line {
    name: String,
    scope: Scope,
    digest: [u8; 32],
}

const FORM: &str = "write `name scope sha256`, as `leasehold tokens new` prints it";
const NAME_RULE: &str = "1 to 64 of a-z 0-9 . _ -, beginning with a letter or digit";

impl Tokens {
    /// The file of `api.tokens`, to be followed.
    ///
    /// # Errors
    /// [`crate::Error::Config`] names the file, the line, and what is expected.
    pub fn open(path: &Path) -> Result<Followed<Self>> {
        Followed::open("api.tokens", path, Self::parse)
    }

    /// Reads the text of a file. Blank lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// A sentence with the line number and what to write instead. It does not quote the line, which may contain a
    /// token.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines: Vec<Line> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.first().is_none_or(|word| word.starts_with('#')) {
                continue;
            }
            let line = read(&words).map_err(|reason| format!("line {number}: {reason}"))?;
            if lines.iter().any(|known| known.digest == line.digest) {
                return Err(format!(
                    "line {number}: an earlier line has the same token; each line needs a different one"
                ));
            }
            if lines.len() == limits::TOKENS_MAX {
                return Err(format!("line {number}: more than {} tokens", limits::TOKENS_MAX));
            }
            lines.push(line);
        }
        if lines.is_empty() {
            return Err(format!("there are no tokens in it; {FORM}"));
        }
        Ok(Self(lines))
    }

    /// The name and scope of a token. Takes constant time, whichever line matches, if any.
    pub fn find(&self, token: &str) -> Option<(&str, Scope)> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let (mut found, mut place) = (Choice::from(0), 0_u32);
        for (at, line) in (0_u32..).zip(&self.0) {
            let same = line.digest.ct_eq(&digest);
            place.conditional_assign(&at, same);
            found |= same;
        }
        let line = bool::from(found).then(|| &self.0[place as usize])?;
        Some((&line.name, line.scope))
    }

    /// Checks the token of a request's headers, `Authorization: Bearer <token>`, and returns its name.
    ///
    /// # Errors
    /// [`NotAdmitted`] when there is no such header, the token is not known, or its scope is not sufficient.
    pub fn admit(&self, headers: &HeaderMap, needed: Scope) -> Result<&str, NotAdmitted> {
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let value = given.next().ok_or(NotAdmitted::Unknown("send the header `Authorization: Bearer <token>`"))?;
        let words = || {
            Some(value.to_str().ok()?.trim().split_once(' ')?)
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        };
        let token = words().filter(|_| given.next().is_none()).map(|(_, token)| token.trim());
        let token = token.ok_or(NotAdmitted::Unknown("the header Authorization must be `Bearer <token>`, once"))?;
        let (name, scope) = self.find(token).ok_or(NotAdmitted::Unknown("the token is not known"))?;
        if scope < needed {
            let detail = format!("this requires a token of scope {needed}; the token {name} has scope {scope}");
            return Err(NotAdmitted::Forbidden(detail));
        }
        Ok(name)
    }

    /// The number of tokens.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

fn read(words: &[&str]) -> Result<Line, String> {
    let [name, scope, digest] = words else { return Err(format!("it has {} words; {FORM}", words.len())) };
    check_name(name)?;
    let scope = Scope::parse(scope).ok_or("the scope is not one of read, submit, admin")?;
    let digest = hex(digest).ok_or("the last word is not a SHA-256 digest of 64 hex digits")?;
    Ok(Line { name: (*name).to_owned(), scope, digest })
}

fn check_name(name: &str) -> Result<(), String> {
    let fit = crate::QueueName::parse(name).is_ok();
    fit.then_some(()).ok_or_else(|| format!("the name is not {NAME_RULE}"))
}

fn hex(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    let digits = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = digits.then(|| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok())??;
    }
    Some(digest)
}

/// A new token of 256 random bits, and its line for the file.
///
/// # Errors
/// A sentence with the rule, when `name` is not allowed in the file.
pub fn mint(name: &str, scope: Scope) -> Result<(String, String), String> {
    check_name(name)?;
    let print = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let token = format!("lh_{}", print(&rand::random::<[u8; 32]>()));
    let line = format!("{name} {scope} {}", print(&Sha256::digest(token.as_bytes())));
    Ok((token, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_by_itself_alone() {
        let minted: Vec<(String, String)> = [("ci", Scope::Submit), ("ci", Scope::Admin), ("eye", Scope::Read)]
            .map(|(n, s)| mint(n, s).unwrap())
            .into();
        let lines: Vec<&str> = minted.iter().map(|(_, line)| line.as_str()).collect();
        let text = format!(
            "# ours\n\n{}\n  {}\r\n{}",
            lines[0],
            lines[1].to_uppercase().replace("CI ADMIN", "ci\tadmin"),
            lines[2]
        );
        let tokens = Tokens::parse(&text).unwrap();
        assert_eq!(tokens.count(), 3);
        let found = |at: usize| tokens.find(&minted[at].0);
        assert_eq!(found(0), Some(("ci", Scope::Submit)));
        assert_eq!(found(1), Some(("ci", Scope::Admin)));
        assert_eq!(found(2), Some(("eye", Scope::Read)));
        assert_ne!(minted[0].0, minted[1].0);
        for wrong in ["", "lh_", &minted[0].0[1..], &format!("{} ", minted[0].0), lines[0]] {
            assert_eq!(tokens.find(wrong), None);
        }
    }

    #[test]
    fn a_file_that_is_wrong_is_refused_by_line_and_not_quoted() {
        let (token, line) = mint("ci", Scope::Read).unwrap();
        let digest = line.rsplit(' ').next().unwrap();
        for (bad, said) in [
            (String::new(), "no token"),
            ("# only\n\n# comments".into(), "no token"),
            (format!("{line}\n\nci admin"), "line 3: it has 2 words"),
            (format!("{line} 2026"), "line 1: it has 4 words"),
            (format!("ci root {digest}"), "line 1: the scope"),
            (format!("ci READ {digest}"), "line 1: the scope"),
            (format!("CI read {digest}"), "line 1: the name"),
            (format!("ci read {token}"), "line 1: the last word"),
            (format!("ci read {}", &digest[1..]), "line 1: the last word"),
            (format!("ci read {}x", &digest[1..]), "line 1: the last word"),
            (format!("{token} read {digest}"), "line 1: the name"),
            (format!("{line}\nother admin {digest}"), "line 2: an earlier line"),
        ] {
            let error = Tokens::parse(&bad).unwrap_err();
            assert!(error.contains(said), "{bad}: {error}");
            assert!(!error.contains(&token), "{error}");
        }
        assert!(mint("two words", Scope::Read).is_err());
    }

    #[test]
    fn scopes_are_a_ladder() {
        assert!(Scope::Read < Scope::Submit && Scope::Submit < Scope::Admin);
        assert!(Scope::ALL.iter().all(|scope| Scope::parse(scope.as_str()) == Some(*scope)));
    }
}
