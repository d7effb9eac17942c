//! Canonical JSON: members sorted by name, canonical numbers, minimal escapes, no white space. Members of one name are all kept,
//! in their order: which of them counts is another one for each reader.
//! Written here and not with a library: these bytes are hashed, and a dependency's update must not change them.

use super::decimal::Decimal;

/// Deeper documents are kept as the text they are.
const DEPTH_MAX: usize = 512;

/// The canonical text, or `None` where `text` is not JSON.
pub(super) fn canonical_json(text: &str) -> Option<String> {
    read(text).map(|(value, _)| value)
}

/// An object of the document has two members of one name, of which a binary form keeps one.
pub fn repeats_names(text: &str) -> bool {
    text.bytes().filter(|byte| *byte == b':').nth(1).is_some()
        && read(text).is_some_and(|(_, repeats)| repeats)
}

fn read(text: &str) -> Option<(String, bool)> {
    let mut reader = Reader { bytes: text.as_bytes(), text, at: 0, repeats: false };
    let value = reader.value(0)?;
    reader.blanks();
    (reader.at == reader.bytes.len()).then_some((value, reader.repeats))
}

struct Reader<'a> {
    bytes: &'a [u8],
    text: &'a str,
    at: usize,
    /// A name stood twice in one object.
    repeats: bool,
}

impl Reader<'_> {
    fn blanks(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.blanks();
        let found = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self, depth: usize) -> Option<String> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.blanks();
        match self.bytes.get(self.at)? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string().map(|s| quoted(&s)),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &str) -> Option<String> {
        self.bytes[self.at..].starts_with(word.as_bytes()).then(|| {
            self.at += word.len();
            word.to_owned()
        })
    }

    fn object(&mut self, depth: usize) -> Option<String> {
        self.at += 1;
        let mut members: Vec<(String, String)> = Vec::new();
        if !self.eat(b'}') {
            loop {
                self.blanks();
                let name = self.string()?;
                if !self.eat(b':') {
                    return None;
                }
                members.push((name, self.value(depth + 1)?));
                if self.eat(b'}') {
                    break;
                }
                if !self.eat(b',') {
                    return None;
                }
            }
        }
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        self.repeats |= members.windows(2).any(|pair| pair[0].0 == pair[1].0);
        let members: Vec<String> =
            members.into_iter().map(|(name, value)| format!("{}:{value}", quoted(&name))).collect();
        Some(format!("{{{}}}", members.join(",")))
    }

    fn array(&mut self, depth: usize) -> Option<String> {
        self.at += 1;
        let mut items = Vec::new();
        if !self.eat(b']') {
            loop {
                items.push(self.value(depth + 1)?);
                if self.eat(b']') {
                    break;
                }
                if !self.eat(b',') {
                    return None;
                }
            }
        }
        Some(format!("[{}]", items.join(",")))
    }

    fn number(&mut self) -> Option<String> {
        let start = self.at;
        self.at += usize::from(self.bytes.get(self.at) == Some(&b'-'));
        let whole = self.digits();
        if whole == 0 || (whole > 1 && self.bytes.get(self.at - whole) == Some(&b'0')) {
            return None;
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return None;
            }
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.bytes.get(self.at), Some(b'+' | b'-')));
            if self.digits() == 0 {
                return None;
            }
        }
        let text = self.text.get(start..self.at)?;
        // Beyond what a decimal holds a number stays as it was written.
        Some(Decimal::parse(text).map_or_else(|| text.to_owned(), |number| number.to_string()))
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        self.at - start
    }

    fn string(&mut self) -> Option<String> {
        if self.bytes.get(self.at) != Some(&b'"') {
            return None;
        }
        self.at += 1;
        let mut out = String::new();
        loop {
            let start = self.at;
            while self.bytes.get(self.at).is_some_and(|b| !matches!(b, b'"' | b'\\' | 0..0x20)) {
                self.at += 1;
            }
            out.push_str(self.text.get(start..self.at)?);
            match self.bytes.get(self.at)? {
                b'"' => {
                    self.at += 1;
                    return Some(out);
                }
                b'\\' => {
                    self.at += 2;
                    let escape = *self.bytes.get(self.at - 1)?;
                    self.escape(escape, &mut out)?;
                }
                _ => return None,
            }
        }
    }

    fn escape(&mut self, escape: u8, out: &mut String) -> Option<()> {
        out.push(match escape {
            b'"' | b'\\' | b'/' => char::from(escape),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex4()?;
                if !(0xd800..0xdc00).contains(&high) {
                    char::from_u32(high)?
                } else {
                    let low = self.bytes[self.at..].starts_with(b"\\u").then(|| {
                        self.at += 2;
                        self.hex4()
                    })??;
                    let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                    char::from_u32(0x10000 + ((high - 0xd800) << 10) + low)?
                }
            }
            _ => return None,
        });
        Some(())
    }

    fn hex4(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{canonical_json, repeats_names};

    #[test]
    fn documents_that_mean_the_same_are_written_the_same() {
        for (from, to) in [
            (r#" { "b" : 1.0 , "a" : [ true , null ] } "#, r#"{"a":[true,null],"b":1}"#),
            (r#"{"b":0, "a":1,"\u0061":2}"#, r#"{"a":1,"a":2,"b":0}"#),
            (r#""\u0041\n\/\ud83d\ude00""#, "\"A\\u000a/😀\""),
            ("1e2", "100"),
            ("-0", "0"),
            (r#"{"$serde_json::private::Number":"1"}"#, r#"{"$serde_json::private::Number":"1"}"#),
        ] {
            assert_eq!(canonical_json(from).as_deref(), Some(to), "{from}");
        }
    }

    #[test]
    fn members_of_one_name_are_all_kept() {
        let documents = [
            r#"{"a":1,"a":2}"#,
            r#"{"a":3,"a":2}"#,
            r#"{"a":2,"a":1}"#,
            r#"{"a":2}"#,
            r#"{"a":1}"#,
            r#"{"a":2,"a":2}"#,
            r#"[{"x":{"a":1,"a":2}}]"#,
            r#"[{"x":{"a":2}}]"#,
        ];
        let mut seen: Vec<_> = documents.iter().map(|text| canonical_json(text).unwrap()).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), documents.len());
        for (text, repeats) in [
            (documents[0], true),
            (documents[3], false),
            (documents[6], true),
            (r#"{"a":1,"b":{"a":1}}"#, false),
            (r#"[{"a":1},{"a":1}]"#, false),
            ("{\"a\":1,\"a\"", false),
        ] {
            assert_eq!(repeats_names(text), repeats, "{text}");
        }
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for bad in [
            "",
            "{",
            "[1,]",
            "{\"a\"}",
            "01",
            "1.",
            "\"\\x\"",
            "\"\\ud800\"",
            "tru",
            "1 2",
            "'a'",
            "\"a\nb\"",
            "\"\\",
            "\"\\u12",
        ] {
            assert_eq!(canonical_json(bad), None, "{bad}");
        }
        assert_eq!(canonical_json(&"[".repeat(100_000)), None);
    }

    proptest! {
        #[test]
        fn canonical_text_is_its_own_canonical_text(text in "[\\[\\]{}:,\"\\\\a-c0-9.eE+ tfn-]{0,40}") {
            if let Some(once) = canonical_json(&text) {
                prop_assert_eq!(canonical_json(&once), Some(once));
            }
        }

        #[test]
        fn agrees_with_serde_on_what_is_json(text in "[\\[\\]{}:,\"a-c0-9.e ]{0,24}") {
            // Numbers beyond f64 are valid JSON; both accept them.
            prop_assert_eq!(canonical_json(&text).is_some(), serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
    }
}
