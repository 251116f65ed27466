//! containerd's filters, which say what a List is to give.
//!
//! ```text
//! filter    := selector ("," selector)*              all of them hold
//! selector  := fieldpath (operator value)?           without an operator: the field is there
//! fieldpath := field ("." field)*
//! field     := quoted | [A-Za-z][A-Za-z0-9_]*
//! operator  := "==" | "!=" | "~="
//! value     := quoted | [^\s,]+                      after "~=" also between "/" or "|"
//! quoted    := a Go string literal in double quotes
//! ```
//! Several filters are alternatives. Fields of a snapshot are `name`, `parent`, `kind` and `labels.<key>`; others are never there.

use std::iter::Peekable;
use std::str::CharIndices;

use regex::Regex;

use crate::error::Error;
use crate::labels::clip;
use crate::limits::{MAX_FILTER_BYTES, MAX_FILTERS, MAX_REGEX_BYTES};
use crate::record::Snapshot;

/// Some filters, any of which may hold. None at all hold for everything.
pub(crate) struct Filters(Vec<Vec<Selector>>);

struct Selector {
    field: Vec<String>,
    test: Test,
}

enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl Filters {
    /// Reads filters as a request has them.
    pub(crate) fn parse(texts: &[String]) -> Result<Self, Error> {
        if texts.len() > MAX_FILTERS {
            return Err(Error::TooManyFilters { count: texts.len(), limit: MAX_FILTERS });
        }
        texts.iter().map(|text| Parser::new(text).filter()).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a List with these filters gives `snapshot`.
    pub(crate) fn accept(&self, snapshot: &Snapshot) -> bool {
        self.0.is_empty() || self.0.iter().any(|filter| filter.iter().all(|selector| selector.accepts(snapshot)))
    }
}

impl Selector {
    fn accepts(&self, snapshot: &Snapshot) -> bool {
        let found = field(snapshot, &self.field);
        match &self.test {
            Test::Present => found.is_some(),
            Test::Equal(value) => found == Some(value.as_str()),
            // A field that is not there counts as empty here, as it does in containerd.
            Test::NotEqual(value) => found.unwrap_or_default() != value,
            Test::Matches(regex) => regex.is_match(found.unwrap_or_default()),
        }
    }
}

fn field<'a>(snapshot: &'a Snapshot, path: &[String]) -> Option<&'a str> {
    match path.first()?.as_str() {
        "name" => Some(&snapshot.name),
        "parent" => Some(&snapshot.record.parent),
        "kind" => Some(snapshot.record.kind.name()),
        "labels" => snapshot.record.labels.get(&path[1..].join(".")).map(String::as_str),
        _ => None,
    }
}

struct Parser<'a> {
    text: &'a str,
    rest: Peekable<CharIndices<'a>>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, rest: text.char_indices().peekable() }
    }

    fn filter(mut self) -> Result<Vec<Selector>, Error> {
        let mut selectors = Vec::new();
        if self.text.is_empty() {
            return Ok(selectors);
        }
        if self.text.len() > MAX_FILTER_BYTES {
            return Err(self.problem("the filter is too long"));
        }
        loop {
            selectors.push(self.selector()?);
            match self.next_visible() {
                None => return Ok(selectors),
                Some(',') => self.skip(),
                Some(_) => return Err(self.problem("expected a comma or the end")),
            }
        }
    }

    fn selector(&mut self) -> Result<Selector, Error> {
        let mut field = vec![self.field()?];
        while self.next_visible() == Some('.') {
            self.skip();
            field.push(self.field()?);
        }
        let test = match self.next_visible() {
            Some(first @ ('=' | '!' | '~')) => {
                self.skip();
                if self.peek() != Some('=') {
                    return Err(self.problem("expected ==, != or ~="));
                }
                self.skip();
                match first {
                    '=' => Test::Equal(self.value(false)?),
                    '!' => Test::NotEqual(self.value(false)?),
                    _ => Test::Matches(self.regex()?),
                }
            }
            _ => Test::Present,
        };
        Ok(Selector { field, test })
    }

    fn field(&mut self) -> Result<String, Error> {
        match self.next_visible() {
            Some('"') => self.quoted(),
            Some(first) if first.is_ascii_alphabetic() => Ok(self.take_while(|c| c.is_ascii_alphanumeric() || c == '_')),
            _ => Err(self.problem("expected a field")),
        }
    }

    fn value(&mut self, slashes_quote: bool) -> Result<String, Error> {
        match self.next_visible() {
            Some('"') => self.quoted(),
            Some('/' | '|') if slashes_quote => self.quoted(),
            None | Some(',') => Err(self.problem("expected a value")),
            Some(_) => Ok(self.take_while(|c| c != ',' && !c.is_whitespace())),
        }
    }

    fn regex(&mut self) -> Result<Regex, Error> {
        let pattern = self.value(true)?;
        let built = regex::RegexBuilder::new(&pattern).size_limit(MAX_REGEX_BYTES).dfa_size_limit(MAX_REGEX_BYTES).build();
        built.map_err(|source| Error::BadRegex { filter: clip(self.text), source: Box::new(source) })
    }

    /// Reads a literal up to the quote that it began with.
    fn quoted(&mut self) -> Result<String, Error> {
        let Some((_, quote)) = self.rest.next() else { return Err(self.problem("expected a quote")) };
        // Bytes, because Go's \x and octal escapes stand for bytes and not for characters.
        let mut bytes = Vec::new();
        loop {
            match self.rest.next() {
                None => return Err(self.problem("a quote is not closed")),
                Some((_, c)) if c == quote => break,
                // In a regular expression a backslash is the expression's, unless it protects the quote.
                Some((_, '\\')) if quote != '"' => {
                    if self.peek() == Some(quote) {
                        self.skip();
                        bytes.push(quote as u8);
                    } else {
                        bytes.push(b'\\');
                        if let Some((_, c)) = self.rest.next() {
                            push(&mut bytes, c);
                        }
                    }
                }
                Some((_, '\\')) => self.escape(&mut bytes)?,
                Some((_, c)) => push(&mut bytes, c),
            }
        }
        String::from_utf8(bytes).map_err(|_| self.problem("a quoted text is not UTF-8"))
    }

    fn escape(&mut self, bytes: &mut Vec<u8>) -> Result<(), Error> {
        let Some((_, c)) = self.rest.next() else { return Err(self.problem("a quote is not closed")) };
        let byte = match c {
            'a' => 0x07,
            'b' => 0x08,
            'f' => 0x0c,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 0x0b,
            '\\' | '"' => c as u8,
            'x' => self.number(0, 2, 16)?.try_into().map_err(|_| self.problem("bad escape"))?,
            '0'..='7' => self.number(c as u32 - '0' as u32, 2, 8)?.try_into().map_err(|_| self.problem("bad escape"))?,
            'u' | 'U' => {
                let value = self.number(0, if c == 'u' { 4 } else { 8 }, 16)?;
                push(bytes, char::from_u32(value).ok_or_else(|| self.problem("bad escape"))?);
                return Ok(());
            }
            _ => return Err(self.problem("bad escape")),
        };
        bytes.push(byte);
        Ok(())
    }

    fn number(&mut self, first: u32, digits: usize, radix: u32) -> Result<u32, Error> {
        let mut value = first;
        for _ in 0..digits {
            let digit = self.rest.next().and_then(|(_, c)| c.to_digit(radix)).ok_or_else(|| self.problem("bad escape"))?;
            value = value.wrapping_mul(radix) | digit;
        }
        Ok(value)
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let mut taken = String::new();
        while let Some((_, c)) = self.rest.next_if(|(_, c)| wanted(*c)) {
            taken.push(c);
        }
        taken
    }

    fn next_visible(&mut self) -> Option<char> {
        while self.rest.next_if(|(_, c)| c.is_whitespace()).is_some() {}
        self.peek()
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().map(|(_, c)| *c)
    }

    fn skip(&mut self) {
        self.rest.next();
    }

    fn problem(&mut self, problem: &'static str) -> Error {
        let at = self.rest.peek().map_or(self.text.len(), |(at, _)| *at);
        Error::BadFilter { filter: clip(self.text), problem, at }
    }
}

fn push(bytes: &mut Vec<u8>, c: char) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::layers::LayerUsage;
    use crate::record::{Kind, Record};

    fn snapshot() -> Snapshot {
        let labels = [("containerd.io/snapshot.ref", "sha256:1"), ("a.b", "quote\"d"), ("plain", "x,y z")];
        Snapshot {
            name: "ns/1/key".to_owned(),
            record: Record {
                id: 1,
                kind: Kind::Active,
                parent: "ns/0/base".to_owned(),
                labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
                created: SystemTime::UNIX_EPOCH,
                updated: SystemTime::UNIX_EPOCH,
                usage: LayerUsage::default(),
                remote: None,
            },
        }
    }

    fn accepts(filters: &[&str]) -> bool {
        let filters: Vec<String> = filters.iter().map(|text| (*text).to_owned()).collect();
        Filters::parse(&filters).unwrap().accept(&snapshot())
    }

    #[test]
    fn what_containerd_asks_after_a_remote_prepare_is_understood() {
        assert!(accepts(&[r#"labels."containerd.io/snapshot.ref"=="sha256:1",parent=="ns/0/base""#]));
        assert!(!accepts(&[r#"labels."containerd.io/snapshot.ref"=="sha256:1",parent=="""#]));
        assert!(!accepts(&[r#"labels."containerd.io/snapshot.ref"==sha256:2"#]));
    }

    #[test]
    fn each_operator_and_each_field_does_what_it_says() {
        for yes in [
            "",
            "name",
            "name==ns/1/key",
            "kind==active",
            "kind!=view",
            "parent~=^ns/",
            "labels.plain",
            "labels.a.b",
            r#"labels."a.b""#,
            r#" labels . plain == "x,y z" , name "#,
            r#"labels."a.b"=="quote\"d""#,
            "name~=/1\\/k.y$/",
            "name~=|key|",
            "labels.none!=x",
            r#"name=="\x6es\0571\u002fkey""#,
        ] {
            assert!(accepts(&[yes]), "{yes}");
        }
        for no in ["name==", "foo", "foo==x", "kind==view", "labels.none", "labels", "name!=ns/1/key", "parent~=^base", "name,kind==view"] {
            let parsed = Filters::parse(&[no.to_owned()]);
            assert!(parsed.is_err() || !accepts(&[no]), "{no}");
        }
    }

    #[test]
    fn several_filters_are_alternatives_and_none_is_everything() {
        assert!(accepts(&[]));
        assert!(accepts(&["kind==view", "kind==active"]));
        assert!(!accepts(&["kind==view", "kind==committed"]));
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for bad in [
            "==x",
            "name=x",
            "name==",
            "name==,",
            ",",
            "name,",
            "name==\"open",
            "name==\"\\q\"",
            "name==\"\\xff\"",
            "name==\"\\400\"",
            "labels.",
            "labels.a/b==x",
            "name~=(",
            "name~=\"a{1000}{1000}\"",
            "name~=/open",
            "\"",
            "na me",
            "name==\"\\ud800\"",
        ] {
            assert!(Filters::parse(&[bad.to_owned()]).is_err(), "{bad}");
        }
        assert!(Filters::parse(&["x".repeat(MAX_FILTER_BYTES + 1)]).is_err());
        assert!(Filters::parse(&vec![String::new(); MAX_FILTERS + 1]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[a-z\"\\\\=!~.,/| x0-7\u{e9}]{0,40}") {
            let _ = Filters::parse(&[text]);
        }

        #[test]
        fn a_quoted_value_means_itself(value in "\\PC{0,30}") {
            let mut wanted = snapshot();
            wanted.name.clone_from(&value);
            let filter = format!("name==\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
            proptest::prop_assert!(Filters::parse(&[filter]).unwrap().accept(&wanted));
        }
    }
}
