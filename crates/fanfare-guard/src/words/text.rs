//! Reading what users wrote: plain text, and the strings of a JSON value with their escapes, scalar value by scalar value and
//! always with the place where each is written.

use std::ops::Range;

/// A walk over the scalar values of a part of a text. Clones look ahead.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    /// Byte where the next scalar value begins; always a boundary.
    at: usize,
    end: usize,
    /// Backslashes escape, as within a JSON string.
    escapes: bool,
}

impl<'a> Cursor<'a> {
    pub(super) fn plain(text: &'a str) -> Self {
        Self { text, at: 0, end: text.len(), escapes: false }
    }

    /// Over the content of a JSON string, without its quotes.
    pub(super) fn json(text: &'a str, content: Range<usize>) -> Self {
        Self { text, at: content.start, end: content.end, escapes: true }
    }

    /// Over a part that began and ended at scalar values of this walk.
    pub(super) fn part(&self, part: Range<usize>) -> Self {
        Self { at: part.start, end: part.end, ..*self }
    }

    /// Byte where the next scalar value begins.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Passes over ASCII that `skips` and that is written as itself. What it passed last, if anything.
    #[inline]
    pub(super) fn skip_ascii(&mut self, skips: impl Fn(u8) -> bool) -> Option<u8> {
        let bytes = &self.text.as_bytes()[self.at..self.end];
        let is_next = |&&byte: &&u8| byte < 0x80 && !(self.escapes && byte == b'\\') && skips(byte);
        let count = bytes.iter().take_while(is_next).count();
        self.at += count;
        count.checked_sub(1).map(|last| bytes[last])
    }

    /// The scalar value that the escape at the cursor means, and its length, backslash included. A surrogate without its other half,
    /// and what JSON does not know, is taken for U+FFFD.
    #[cold]
    fn escape(&self) -> (char, usize) {
        let rest = &self.text.as_bytes()[self.at..self.end];
        let unit = |from: usize| {
            let digits = rest.get(from..from + 6)?.strip_prefix(b"\\u")?;
            digits.iter().try_fold(0, |unit, &digit| Some(unit << 4 | char::from(digit).to_digit(16)?))
        };
        let char = match rest.get(1) {
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'b') => '\x08',
            Some(b'f') => '\x0c',
            Some(&quoted @ (b'"' | b'\\' | b'/')) => char::from(quoted),
            Some(b'u') => return self.unicode_escape(unit(0), unit(6)),
            _ => return (char::REPLACEMENT_CHARACTER, 1),
        };
        (char, 2)
    }

    fn unicode_escape(&self, unit: Option<u32>, next: Option<u32>) -> (char, usize) {
        let Some(unit) = unit else { return (char::REPLACEMENT_CHARACTER, 1) };
        if let Some(char) = char::from_u32(unit) {
            return (char, 6);
        }
        let pair = next.filter(|low| unit < 0xdc00 && (0xdc00..0xe000).contains(low));
        let pair = pair.and_then(|low| char::from_u32(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00)));
        pair.map_or((char::REPLACEMENT_CHARACTER, 6), |char| (char, 12))
    }
}

impl Iterator for Cursor<'_> {
    type Item = char;

    #[inline]
    fn next(&mut self) -> Option<char> {
        if self.at >= self.end {
            return None;
        }
        let byte = self.text.as_bytes()[self.at];
        let (char, len) = match byte {
            b'\\' if self.escapes => self.escape(),
            0..0x80 => (char::from(byte), 1),
            _ => {
                let char = self.text[self.at..].chars().next()?;
                (char, char.len_utf8())
            }
        };
        self.at += len;
        Some(char)
    }
}

/// The string values in a JSON text, without their quotes; names of members are passed over.
///
/// Of a text that is not JSON it gives whatever stands between quotes.
#[derive(Debug, Clone)]
pub(super) struct JsonStrings<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> JsonStrings<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { bytes: text.as_bytes(), at: 0 }
    }

    /// Where the string that begins at `start` ends: at its closing quote.
    fn end(&self, start: usize) -> Option<usize> {
        let mut at = start;
        loop {
            at += self.bytes.get(at..)?.iter().position(|&byte| byte == b'"' || byte == b'\\')?;
            if self.bytes[at] == b'"' {
                return Some(at);
            }
            at += 2;
        }
    }
}

impl Iterator for JsonStrings<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        loop {
            let start = self.at + self.bytes.get(self.at..)?.iter().position(|&byte| byte == b'"')? + 1;
            let Some(end) = self.end(start) else {
                self.at = self.bytes.len();
                return None;
            };
            self.at = end + 1;
            let after = self.bytes[self.at..].iter().find(|byte| !byte.is_ascii_whitespace());
            if after != Some(&b':') {
                return Some(start..end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn strings(text: &str) -> Vec<String> {
        JsonStrings::new(text).map(|content| Cursor::json(text, content).collect()).collect()
    }

    #[test]
    fn escapes_mean_what_json_says() {
        for (text, meant) in [
            (r#""b\u0061d""#, "bad"),
            (r#""\u4e2d\u6587""#, "中文"),
            (r#""\ud83d\ude00""#, "😀"),
            (r#""\uD83D\uDE00x""#, "😀x"),
            (r#""\n\t\r\b\f\/\\\"""#, "\n\t\r\u{8}\u{c}/\\\""),
            (r#""\ud83d""#, "\u{fffd}"),
            (r#""\ude00\ud83d""#, "\u{fffd}\u{fffd}"),
            (r#""\ud83d\u0041""#, "\u{fffd}A"),
            (r#""\\u0041""#, "\\u0041"),
        ] {
            assert_eq!(strings(text), [meant], "{text}");
        }
    }

    #[test]
    fn values_are_read_and_names_are_not() {
        let text = r#" {"a" : "1", "b":["2",{"c":"3\"x"},"4:"] ,"d":null,"":"5"} "#;
        assert_eq!(strings(text), ["1", "2", "3\"x", "4:", "5"]);
        assert_eq!(strings(r#""alone""#), ["alone"]);
        assert!(strings("[1,true,{}]").is_empty());
    }

    #[test]
    fn what_is_not_json_ends_somehow() {
        for text in ["\"", "\"\\", "\"\\u", "\"\\u12", "\"a\\\"", "\"\\x\"", "{\"a\":\"b", "\"\\u中\""] {
            let _ = strings(text);
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(Value::Null), any::<i64>().prop_map(Value::from), any::<String>().prop_map(Value::from)];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn values(value: &Value, out: &mut Vec<String>) {
        match value {
            Value::String(string) => out.push(string.clone()),
            Value::Array(items) => items.iter().for_each(|item| values(item, out)),
            Value::Object(members) => members.values().for_each(|member| values(member, out)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    proptest! {
        #[test]
        fn the_strings_of_any_json_are_found(value in any_json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let mut expected = Vec::new();
            values(&value, &mut expected);
            prop_assert_eq!(strings(&text), expected);
        }

        #[test]
        fn arbitrary_text_ends_and_does_not_panic(text in "[\"\\\\u0-9a-f:{},中 ]{0,40}") {
            let _ = strings(&text);
            prop_assert_eq!(Cursor::plain(&text).collect::<String>(), text);
        }
    }
}
