//! What the classifier judges a text by: its words, or its ideographs one by one, and each pair of neighbours.

use super::normalise::{Piece, Signs, Writing, pieces};
use super::text::Cursor;

/// Takes a text apart. The classifier hashes what it is given, training writes it down.
pub(super) trait Sink {
    /// One more letter of the token that is under way.
    fn letter(&mut self, letter: char);
    /// The token is complete.
    fn token(&mut self);
    /// The text is over: what comes next is not its neighbour.
    fn end(&mut self);
}

/// Gives the tokens of one text to `sink`.
pub(super) fn tokens(text: Cursor<'_>, sink: &mut impl Sink) {
    let signs = Signs::default();
    let mut open = None;
    for char in text {
        pieces(char, &signs, |piece| {
            let next = match piece {
                // A vowel sign or the rest of a syllable never stands alone.
                Piece::Letter { extends: true, .. } => open.or(Some(Writing::Unspaced)),
                Piece::Letter { writing, .. } => {
                    if writing == Writing::Unspaced || open == Some(Writing::Unspaced) {
                        close(&mut open, sink);
                    }
                    Some(writing)
                }
                // Emoji and signs of money say much about a message.
                Piece::Separator { char, .. } => {
                    close(&mut open, sink);
                    (!char.is_ascii() && Signs::counts(char)).then_some(Writing::Unspaced)
                }
            };
            if next.is_some() {
                let (Piece::Letter { char, .. } | Piece::Separator { char, .. }) = piece;
                sink.letter(char);
                open = next;
            }
        });
    }
    close(&mut open, sink);
    sink.end();
}

fn close(open: &mut Option<Writing>, sink: &mut impl Sink) {
    if open.take().is_some() {
        sink.token();
    }
}

/// A feature's name in a table: its letters, hashed (FNV-1a, mixed at the end). Part of the model's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FeatureHash(u64);

impl FeatureHash {
    pub(super) const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);

    pub(super) fn with(self, letter: char) -> Self {
        let mut utf8 = [0; 4];
        let bytes = letter.encode_utf8(&mut utf8).as_bytes();
        Self(bytes.iter().fold(self.0, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
    }

    /// Of a pair, written with a space between.
    pub(super) fn pair(self, next: Self) -> Self {
        Self(self.0.rotate_left(23) ^ next.0.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The hash with all its bits alike.
    pub(super) fn mixed(self) -> u64 {
        let mixed = (self.0 ^ self.0 >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ mixed >> 32
    }

    /// Of a feature as a model file has it: one token, or two with a space between.
    pub(super) fn of(feature: &str) -> Self {
        let token = |token: &str| token.chars().fold(Self::EMPTY, Self::with);
        match feature.split_once(' ') {
            None => token(feature),
            Some((one, next)) => token(one).pair(token(next)),
        }
    }
}

/// Calls `each` with the hash of every token and of every pair of neighbours.
pub(super) struct Hashes<F> {
    each: F,
    token: FeatureHash,
    before: Option<FeatureHash>,
}

impl<F: FnMut(FeatureHash)> Hashes<F> {
    pub(super) fn new(each: F) -> Self {
        Self { each, token: FeatureHash::EMPTY, before: None }
    }
}

impl<F: FnMut(FeatureHash)> Sink for Hashes<F> {
    fn letter(&mut self, letter: char) {
        self.token = self.token.with(letter);
    }

    fn token(&mut self) {
        let token = std::mem::replace(&mut self.token, FeatureHash::EMPTY);
        (self.each)(token);
        if let Some(before) = self.before.replace(token) {
            (self.each)(before.pair(token));
        }
    }

    fn end(&mut self) {
        self.before = None;
    }
}

/// Collects tokens and pairs as they are written into a model file.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) features: Vec<String>,
    token: String,
    before: Option<String>,
}

impl Sink for Names {
    fn letter(&mut self, letter: char) {
        self.token.push(letter);
    }

    fn token(&mut self) {
        let token = std::mem::take(&mut self.token);
        if let Some(before) = self.before.replace(token.clone()) {
            self.features.push(format!("{before} {token}"));
        }
        self.features.push(token);
    }

    fn end(&mut self) {
        self.before = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(text: &str) -> Vec<String> {
        let mut names = Names::default();
        tokens(Cursor::plain(text), &mut names);
        names.features
    }

    #[test]
    fn words_stand_alone_and_ideographs_one_by_one() {
        assert_eq!(names("Free MONEY, now"), ["free", "free money", "money", "money now", "now"]);
        assert_eq!(names("免费qq群1"), ["免", "免 费", "费", "费 qq", "qq", "qq 群", "群", "群 1", "1"]);
        assert_eq!(names("💰💰"), ["💰", "💰 💰", "💰"]);
        assert_eq!(names("…!,\n"), Vec::<String>::new());
        let korean = names("한국");
        assert_eq!(korean.len(), 3, "{korean:?}");
        let voiced = names("バカ");
        assert_eq!(voiced.len(), 3, "{voiced:?}");
    }

    proptest! {
        #[test]
        fn the_hash_of_a_feature_is_that_of_its_name(text in any::<String>()) {
            let mut hashes = Vec::new();
            tokens(Cursor::plain(&text), &mut Hashes::new(|hash: FeatureHash| hashes.push(hash.mixed())));
            let mut named: Vec<_> = names(&text).iter().map(|name| FeatureHash::of(name).mixed()).collect();
            hashes.sort_unstable();
            named.sort_unstable();
            prop_assert_eq!(hashes, named);
        }
    }
}
