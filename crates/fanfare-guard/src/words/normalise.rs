//! What a scalar value of a text means to the word filter: letters it is compared by, or a gap between letters.
//!
//! Compatibility forms are taken apart (NFKD: full width, half width, ligatures, circled letters), case is folded, accents and
//! what cannot be seen are left out. Word lists and messages go through here alike, so both arrive in one form.

use unicode_normalization::char::{decompose_compatible, is_combining_mark};

/// How letters of a script stand in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writing {
    /// Words stand apart: Latin, Cyrillic, Arabic, digits and so on.
    Spaced,
    /// Words follow each other without a sign of it, or take endings: Chinese, Japanese, Korean, Thai, emoji.
    Unspaced,
    /// An ASCII sign that the word list uses as a letter.
    Sign,
}

/// What lies between two letters: a set of the kinds of separators there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Gap(u8);

impl Gap {
    pub(super) const NONE: Self = Self(0);
    /// Dots, dashes, signs: nobody writes them within a word by chance.
    pub(super) const MARK: Self = Self(1);
    /// White space and apostrophes: what parts words that mean something else together, as in `he'll`.
    pub(super) const SPACE: Self = Self(2);
    /// The end of a sentence, a part of one, or a line.
    pub(super) const STOP: Self = Self(4);

    pub(super) const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// White space or the end of something.
    pub(super) const fn is_blank(self) -> bool {
        self.has(Self::SPACE) || self.has(Self::STOP)
    }

    pub(super) const fn has(self, kind: Self) -> bool {
        self.0 & kind.0 != 0
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A part of a scalar value, as the filter sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// A letter, digit or mark to compare by.
    Letter {
        /// Folded.
        char: char,
        writing: Writing,
        /// It belongs to the letter before it: a vowel sign, a voicing mark, the rest of a Korean syllable.
        extends: bool,
    },
    /// Passed over between letters.
    Separator { char: char, gap: Gap },
}

/// Signs that count as letters because a word of the list has them.
#[derive(Debug, Clone, Default)]
pub(super) struct Signs {
    ascii: u128,
    /// Sorted.
    others: Box<[char]>,
}

impl Signs {
    pub(super) fn new(mut signs: Vec<char>) -> Self {
        signs.sort_unstable();
        signs.dedup();
        let ascii = signs.iter().filter(|sign| sign.is_ascii()).fold(0, |set, &sign| set | 1 << u32::from(sign));
        signs.retain(|sign| !sign.is_ascii());
        Self { ascii, others: signs.into() }
    }

    fn has(&self, char: char) -> bool {
        if char.is_ascii() { self.ascii >> u32::from(char) & 1 == 1 } else { self.others.binary_search(&char).is_ok() }
    }

    /// Whether a word that has this sign means it: `$` in `a$$` and an emoji do, a dash or a dot only joins.
    pub(super) fn counts(char: char) -> bool {
        if char.is_ascii() {
            return "!#$%&*+<=>?@^|~".contains(char);
        }
        // From arrows on there are symbols and emoji; before them and in the block of Chinese punctuation little but punctuation.
        match char {
            '\u{a2}'..='\u{a5}' | '\u{20a0}'..='\u{20cf}' => true,
            _ => char >= '\u{2190}' && !('\u{3000}'..='\u{303f}').contains(&char),
        }
    }
}

/// Calls `each` with the pieces of `char`, in order. A scalar value that nobody sees has none.
#[inline]
pub(super) fn pieces(char: char, signs: &Signs, mut each: impl FnMut(Piece)) {
    if char.is_ascii() {
        return each(ascii(char, signs));
    }
    // What Chinese text is full of comes first, without a look into the tables.
    if is_ideograph(char) {
        return each(Piece::Letter { char, writing: Writing::Unspaced, extends: false });
    }
    if let Some(narrow) = narrow(char) {
        return each(ascii(narrow, signs));
    }
    if is_unseen(char) {
        return;
    }
    decompose_compatible(char, |part| part_pieces(part, signs, &mut each));
}

fn ascii(char: char, signs: &Signs) -> Piece {
    if char.is_ascii_alphanumeric() {
        return Piece::Letter { char: char.to_ascii_lowercase(), writing: Writing::Spaced, extends: false };
    }
    if signs.has(char) {
        return Piece::Letter { char, writing: Writing::Sign, extends: false };
    }
    let gap = match char {
        '\n' | '\r' => Gap::SPACE.and(Gap::STOP),
        ' ' | '\t' | '\x0b' | '\x0c' | '\'' => Gap::SPACE,
        ',' | '!' | '?' | ';' | ':' => Gap::STOP,
        _ => Gap::MARK,
    };
    Piece::Separator { char, gap }
}

fn part_pieces(part: char, signs: &Signs, each: &mut impl FnMut(Piece)) {
    if part.is_ascii() {
        return each(ascii(part, signs));
    }
    if is_unseen(part) || is_accent(part) {
        return;
    }
    let is_mark = is_combining_mark(part);
    if is_mark || part.is_alphanumeric() {
        let extends = is_mark || matches!(part, '\u{1160}'..='\u{11ff}' | '\u{d7b0}'..='\u{d7ff}');
        let writing = if is_unspaced(part) { Writing::Unspaced } else { Writing::Spaced };
        return fold_case(part, |char| each(Piece::Letter { char, writing, extends }));
    }
    if signs.has(part) {
        return each(Piece::Letter { char: part, writing: Writing::Unspaced, extends: false });
    }
    let gap = match part {
        '\u{85}' | '\u{2028}' | '\u{2029}' => Gap::SPACE.and(Gap::STOP),
        '。' | '、' | '؟' | '،' | '؛' | '।' => Gap::STOP,
        '‘' | '’' => Gap::SPACE,
        _ if part.is_whitespace() => Gap::SPACE,
        _ => Gap::MARK,
    };
    each(Piece::Separator { char: part, gap });
}

/// To lower case by way of upper: that comes to Unicode's full case folding for what people write. ß, ẞ and SS meet, ς and Σ, ı and I.
fn fold_case(char: char, mut each: impl FnMut(char)) {
    for upper in char.to_lowercase().flat_map(char::to_uppercase) {
        upper.to_lowercase().for_each(&mut each);
    }
}

/// The ASCII character that a full-width one stands for.
fn narrow(char: char) -> Option<char> {
    let offset = u32::from(char).checked_sub(0xff01)?;
    (offset < 94).then(|| char::from_u32(offset + 0x21)).flatten()
}

/// Ideographs that are their own normal form.
pub(super) fn is_ideograph(char: char) -> bool {
    matches!(char, '\u{4e00}'..='\u{9fff}' | '\u{3400}'..='\u{4dbf}' | '\u{20000}'..='\u{2f7ff}' | '\u{30000}'..='\u{3ffff}')
}

fn is_unspaced(char: char) -> bool {
    matches!(char,
        '\u{e00}'..='\u{109f}' | '\u{1100}'..='\u{11ff}' | '\u{1780}'..='\u{17ff}' | '\u{1950}'..='\u{19df}'
        | '\u{1a20}'..='\u{1aaf}' | '\u{2e80}'..='\u{2fdf}' | '\u{3005}'..='\u{3007}' | '\u{3021}'..='\u{3035}'
        | '\u{3040}'..='\u{a4cf}' | '\u{a960}'..='\u{a97f}' | '\u{aa60}'..='\u{aadf}' | '\u{ac00}'..='\u{d7ff}'
        | '\u{f900}'..='\u{faff}' | '\u{1b000}'..='\u{1b2ff}' | '\u{20000}'..='\u{3ffff}')
}

/// Signs over, under and through letters that do not change the word: accents, enclosures, Hebrew and Arabic points.
fn is_accent(char: char) -> bool {
    matches!(char,
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{591}'..='\u{5bd}' | '\u{5bf}' | '\u{5c1}'..='\u{5c2}'
        | '\u{5c4}'..='\u{5c5}' | '\u{5c7}' | '\u{610}'..='\u{61a}' | '\u{640}' | '\u{64b}'..='\u{65f}' | '\u{670}'
        | '\u{6d6}'..='\u{6dc}' | '\u{6df}'..='\u{6e4}' | '\u{6e7}'..='\u{6e8}' | '\u{6ea}'..='\u{6ed}'
        | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

/// What takes no room on the screen: joiners, directions, fillers, selectors, tags (Unicode's default ignorables).
fn is_unseen(char: char) -> bool {
    matches!(char,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The letters, with `·` for each separator.
    fn normal(text: &str) -> String {
        let mut out = String::new();
        for char in text.chars() {
            pieces(char, &Signs::default(), |piece| match piece {
                Piece::Letter { char, .. } => out.push(char),
                Piece::Separator { .. } => out.push('·'),
            });
        }
        out
    }

    #[test]
    fn forms_of_one_word_meet() {
        for (forms, normal_form) in [
            (
                &[
                    "bad",
                    "BAD",
                    "ｂａｄ",
                    "ＢＡＤ",
                    "ⓑⓐⓓ",
                    "𝕓𝕒𝕕",
                    "𝐁𝑨𝓓",
                    "b\u{301}a\u{20dd}d\u{335}",
                    "bád",
                    "ba\u{200d}d",
                    "b\u{ad}ad",
                ][..],
                "bad",
            ),
            (&["STRASSE", "straße", "Strasſe", "STRAẞE"], "strasse"),
            (&["ΛΟΓΟΣ", "λόγος", "λογοσ"], "λογοσ"),
            (&["\u{1fb3}", "\u{3b1}\u{345}", "Α"], "α"),
            (&["ﬁsh", "fish", "ＦＩＳＨ"], "fish"),
            (&["坏蛋", "坏\u{fe00}蛋", "坏\u{200b}蛋"], "坏蛋"),
            (&["İI", "ii", "ıi"], "ii"),
            (&["ﾊﾞｶ", "バカ", "ハ\u{3099}カ"], "ハ\u{3099}カ"),
            (&["한", "\u{1112}\u{1161}\u{11ab}", "ᄒ\u{1161}\u{11ab}"], "\u{1112}\u{1161}\u{11ab}"),
            (&["سلام", "سَلَام", "ســلام"], "سلام"),
            (&["\u{f9d8}", "律"], "律"),
        ] {
            for form in forms {
                assert_eq!(normal(form), normal_form, "{form:?}");
            }
        }
    }

    #[test]
    fn what_is_no_letter_is_a_gap_of_its_kind() {
        for (char, gap) in [
            (' ', Gap::SPACE),
            ('\u{3000}', Gap::SPACE),
            ('\'', Gap::SPACE),
            ('’', Gap::SPACE),
            ('\u{a0}', Gap::SPACE),
            ('\n', Gap::SPACE.and(Gap::STOP)),
            ('\u{2028}', Gap::SPACE.and(Gap::STOP)),
            (',', Gap::STOP),
            ('，', Gap::STOP),
            ('。', Gap::STOP),
            ('｡', Gap::STOP),
            ('！', Gap::STOP),
            ('.', Gap::MARK),
            ('_', Gap::MARK),
            ('*', Gap::MARK),
            ('·', Gap::MARK),
            ('★', Gap::MARK),
            ('\0', Gap::MARK),
            ('🙂', Gap::MARK),
        ] {
            let mut seen = Vec::new();
            pieces(char, &Signs::default(), |piece| seen.push(piece));
            let [Piece::Separator { gap: found, .. }] = seen[..] else { panic!("{char:?}: {seen:?}") };
            assert_eq!(found, gap, "{char:?}");
        }
    }

    #[test]
    fn signs_of_the_list_are_letters() {
        let signs = Signs::new(vec!['$', '🖕', '$']);
        for (char, writing) in [('$', Writing::Sign), ('＄', Writing::Sign), ('🖕', Writing::Unspaced)] {
            let mut seen = Vec::new();
            pieces(char, &signs, |piece| seen.push(piece));
            assert!(matches!(seen[..], [Piece::Letter { writing: w, .. }] if w == writing), "{char}: {seen:?}");
        }
        assert_eq!(normal("$"), "·");
    }
}
