//! Names in messages: who is mentioned in a room while he is away finds it in his inbox.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use fanfare_guard::Verdict;
use fanfare_protocol::{Payload, RoomName, UserName};
use fanfare_registry::{Letter, Mentioned, Ring};

use crate::direct::told_frame;
use crate::hub::Hub;
use crate::people::Known;

/// Mentions looked at in one message.
const MENTIONS_MAX: usize = 16;

/// Characters of a name that is looked for.
const NAME_CHARS_MAX: usize = 32;

impl Hub {
    /// Whether a message may mention somebody for whom that is kept. Most namespaces keep nothing and most messages have no `@`.
    pub(crate) fn may_mention(&self, room: &RoomName, payload: &Payload) -> bool {
        self.settings().namespaces.get(room).inbox_size > 0 && text(payload).is_some_and(|text| text.contains(&b'@'))
    }

    /// Keeps a publication for those who are mentioned in it, are away, and may hear it.
    pub(crate) fn keep_mentions(&self, room: &RoomName, user: Option<&UserName>, payload: &Payload) {
        let Some(text) = text(payload).and_then(|text| str::from_utf8(text).ok()) else { return };
        let is_json = matches!(payload, Payload::Json(_));
        let settings = self.settings();
        let policy = settings.namespaces.get(room);
        let mut hasher = DefaultHasher::new();
        room.namespace().hash(&mut hasher);
        // Never that of direct messages.
        let ring = Ring { kind: hasher.finish() | 1, size: policy.inbox_size };
        let now = self.now();
        let mut letter: Option<Letter> = None;
        let mut told: Vec<String> = Vec::new();
        for name in mentions(text, is_json).take(MENTIONS_MAX) {
            for end in ends(&name).rev() {
                let name = &name[..end];
                if told.iter().any(|told| told == name) {
                    break;
                }
                let letter = letter.get_or_insert_with(|| Letter {
                    frame: told_frame(payload, user, Some(room)),
                    at: now,
                    ring,
                });
                let may = |who: &Known| policy.may_subscribe(&who.identity, room) == Verdict::Allow;
                match self.users().mention(name, letter, may, now) {
                    Mentioned::Unknown => {}
                    Mentioned::Here | Mentioned::Kept | Mentioned::Refused => {
                        told.push(name.to_owned());
                        break;
                    }
                }
            }
        }
    }
}

fn text(payload: &Payload) -> Option<&[u8]> {
    match payload {
        Payload::Json(text) | Payload::Text(text) => Some(text),
        Payload::Binary(_) => None,
    }
}

/// What stands behind each `@` that begins a word: as much as a name may have.
fn mentions(text: &str, is_json: bool) -> impl Iterator<Item = String> {
    text.match_indices('@').filter_map(move |(at, _)| {
        let before = text[..at].chars().next_back();
        // An address is none, and neither is a second `@`.
        if before.is_some_and(|before| is_word(before) && !is_dense(before)) {
            return None;
        }
        let behind = &text[at + 1..];
        let name: String = if is_json { unescaped(behind) } else { behind.chars().take(NAME_CHARS_MAX + 1).collect() };
        (!name.is_empty()).then_some(name)
    })
}

/// The beginning of a JSON string's content, as it is meant; it ends where the string does, or at what cannot be read.
fn unescaped(json: &str) -> String {
    let bytes = json.as_bytes();
    let mut end = 0;
    // Six bytes stand for a character, or for half of one, at most.
    while end < bytes.len().min(12 * (NAME_CHARS_MAX + 1)) && bytes[end] != b'"' {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    let mut end = end.min(bytes.len());
    while !json.is_char_boundary(end) {
        end -= 1;
    }
    let plain = &json[..end];
    if !plain.contains('\\') {
        return plain.chars().take(NAME_CHARS_MAX + 1).collect();
    }
    // Cut off in an escape: a little less is whole.
    let whole = (0..12).filter_map(|less| plain.get(..plain.len().checked_sub(less)?));
    let read = whole.filter_map(|part| serde_json::from_str::<String>(&format!("\"{part}\"")).ok()).next();
    read.unwrap_or_default().chars().take(NAME_CHARS_MAX + 1).collect()
}

/// Where a name may end in what stands behind an `@`, shortest first.
fn ends(text: &str) -> impl DoubleEndedIterator<Item = usize> {
    let chars: Vec<(usize, char)> = text.char_indices().collect();
    let mut ends = Vec::new();
    for (n, &(at, last)) in chars.iter().enumerate().take(NAME_CHARS_MAX) {
        let next = chars.get(n + 1).map(|&(_, next)| next);
        let is_end = next.is_none_or(|next| !is_word(next) || is_dense(next) || is_dense(last));
        if is_end {
            ends.push(at + last.len_utf8());
        }
    }
    ends.into_iter()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// A script that writes words without spaces between them.
fn is_dense(c: char) -> bool {
    matches!(c, '\u{2e80}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, is_json: bool, expected: &[&[&str]]) {
        let found: Vec<Vec<String>> =
            mentions(text, is_json).map(|name| ends(&name).map(|end| name[..end].to_owned()).collect()).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn names_end_where_words_do() {
        check("hi @ann", false, &[&["ann"]]);
        check("@ann, hi", false, &[&["ann", "ann,", "ann, hi"]]);
        check("mail ann@example.org", false, &[]);
        check("none @", false, &[]);
        check("@Ada L", false, &[&["Ada", "Ada L"]]);
        check("你好@小明你好", false, &[&["小", "小明", "小明你", "小明你好"]]);
    }

    #[test]
    fn strings_of_json_are_read_as_they_are_meant() {
        check(r#"{"text":"hi @ann"}"#, true, &[&["ann"]]);
        check(r#"["@Zo\u00eb","@b"]"#, true, &[&["Zoë"], &["b"]]);
        check(r#""@\ud83c\udfba""#, true, &[&["🎺"]]);
        check(r#""@ann\n""#, true, &[&["ann", "ann\n"]]);
        check(&format!(r#""@{}""#, r"\u00eb".repeat(100)), true, &[&[]]);
    }
}
