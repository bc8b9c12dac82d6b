//! Finding the words of a list in a text: an Aho–Corasick automaton that is fed the text's letters as they are normalised, so that
//! nothing is copied, whatever is between the letters is passed over, and every message takes time in proportion to its length.

use std::fmt;
use std::ops::{ControlFlow, Range};

use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::contiguous;
use aho_corasick::{Anchored, MatchKind, StartKind, dfa};

use super::list::{self, WORD_LETTERS_MAX, Word, WordListError, WordProblem};
use super::normalise::{Gap, Piece, Signs, Writing, is_ideograph, pieces};
use super::text::Cursor;

/// White space and ends of sentences in a row that are passed over beside a letter of an unspaced script; more of them end a word that has
/// begun, because columns and lines of such a script are no words. Where letters are spaced, and of marks, any number is passed over: who
/// may write eight dots to get by may write nine.
const UNSPACED_BLANKS_MAX: u32 = 8;

/// Up to so many bytes of words the automaton has all its transitions in one table, a step each; beyond, that table would not fit a
/// processor's caches (8 MiB at the worst), and states with few transitions are stored tightly.
const DFA_BYTES_MAX: usize = 8 << 10;

/// The words of a list, compiled. Immutable.
pub struct WordList {
    automaton: Compiled,
    words: Box<[Word]>,
    signs: Signs,
    /// By ASCII byte: a word can begin with it.
    begins: [bool; 128],
    ideographs: Ideographs,
}

/// The ideographs that words begin with, a bit each: most of those in a text are none.
struct Ideographs(Box<[u64]>);

impl Ideographs {
    /// From the first to the last of the two blocks that nearly all text is in; others are never ruled out.
    const FIRST: u32 = 0x3400;
    const COUNT: u32 = 0xa000 - Self::FIRST;

    fn new(firsts: impl Iterator<Item = char>) -> Self {
        let mut bits = vec![0; Self::COUNT.div_ceil(64) as usize];
        for offset in firsts.filter_map(Self::offset) {
            bits[offset / 64] |= 1 << (offset % 64);
        }
        Self(bits.into())
    }

    fn offset(char: char) -> Option<usize> {
        let offset = u32::from(char).checked_sub(Self::FIRST).filter(|&offset| offset < Self::COUNT)?;
        is_ideograph(char).then_some(offset as usize)
    }

    /// True when no word begins with this ideograph.
    fn rules_out(&self, char: char) -> bool {
        Self::offset(char).is_some_and(|offset| self.0[offset / 64] >> (offset % 64) & 1 == 0)
    }
}

enum Compiled {
    Dfa(dfa::DFA),
    Nfa(contiguous::NFA),
}

/// Where a word was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hit {
    /// Bytes of the text, from its first letter to its last, with what is between.
    pub(super) place: Range<usize>,
    /// Index of the word.
    pub(super) word: usize,
}

impl WordList {
    /// Compiles a list: a word a line, UTF-8, `#` begins a comment line. `docs/moderation.md` says what words match.
    ///
    /// # Errors
    /// [`WordListError`] with the lines that are wrong. At most [`WORDS_MAX`](super::WORDS_MAX) words and
    /// [`WORDS_BYTES_MAX`](super::WORDS_BYTES_MAX) bytes are taken.
    pub fn parse(bytes: &[u8]) -> Result<Self, WordListError> {
        let list::Words { words, letters, signs } = list::read(bytes)?;
        let automaton =
            compile(&letters).map_err(|error| WordListError::whole(WordProblem::NotCompiled(error.to_string())))?;
        let mut begins = [false; 128];
        let firsts = || letters.iter().filter_map(|word| word.chars().next());
        for first in firsts().filter(char::is_ascii) {
            begins[first as usize] = true;
            begins[first.to_ascii_uppercase() as usize] = true;
        }
        let ideographs = Ideographs::new(firsts());
        Ok(Self { automaton, words: words.into(), signs, begins, ideographs })
    }

    /// How many words it has, each form counted once.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// True without a word.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// A word as the list has it.
    pub(super) fn written(&self, word: usize) -> &str {
        &self.words[word].written
    }

    /// True when no word begins with ASCII: texts of ASCII alone have none then.
    pub(super) fn begins_beyond_ascii(&self) -> bool {
        !self.begins.contains(&true)
    }

    /// Calls `found` with each place, in the order of their ends; at most one for each letter, the widest. Stops when it says so.
    pub(super) fn scan(&self, text: Cursor<'_>, found: &mut impl FnMut(Hit) -> ControlFlow<()>) -> ControlFlow<()> {
        match &self.automaton {
            Compiled::Dfa(automaton) => Scan::new(self, automaton, text).run(found),
            Compiled::Nfa(automaton) => Scan::new(self, automaton, text).run(found),
        }
    }
}

impl fmt::Debug for WordList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WordList").field("words", &self.words.len()).finish_non_exhaustive()
    }
}

fn compile(letters: &[String]) -> Result<Compiled, aho_corasick::BuildError> {
    let bytes: usize = letters.iter().map(String::len).sum();
    if bytes <= DFA_BYTES_MAX {
        let mut builder = dfa::DFA::builder();
        builder.match_kind(MatchKind::Standard).start_kind(StartKind::Unanchored).prefilter(false);
        return builder.build(letters).map(Compiled::Dfa);
    }
    let mut builder = contiguous::NFA::builder();
    builder.match_kind(MatchKind::Standard).prefilter(false).build(letters).map(Compiled::Nfa)
}

/// A letter that was fed to the automaton.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// Byte where its scalar value begins.
    at: u32,
    /// What is between it and the letter before.
    gap: Gap,
    writing: Writing,
    /// Nothing is between it and a letter of a spaced script before: it is not the beginning of a word.
    is_joined: bool,
    /// It is the first of its scalar value.
    is_first: bool,
}

const NO_STEP: Step = Step { at: 0, gap: Gap::NONE, writing: Writing::Spaced, is_joined: false, is_first: false };

struct Scan<'a, A> {
    list: &'a WordList,
    automaton: &'a A,
    start: StateID,
    cursor: Cursor<'a>,
    state: StateID,
    /// The last letters, in a ring; as many as the longest word has.
    steps: [Step; WORD_LETTERS_MAX],
    /// Letters fed so far; the last one is in place `count - 1` of the ring.
    count: usize,
    /// What came since the last letter.
    gap: Gap,
    /// Of it, what is more than a mark.
    blanks: u32,
    /// How the last letter is written; none at the beginning of the text.
    last: Option<Writing>,
}

impl<'a, A: Automaton> Scan<'a, A> {
    fn new(list: &'a WordList, automaton: &'a A, cursor: Cursor<'a>) -> Self {
        let start = automaton.start_state(Anchored::No).expect("both kinds are built for unanchored searches");
        Self {
            list,
            automaton,
            start,
            cursor,
            state: start,
            steps: [NO_STEP; WORD_LETTERS_MAX],
            count: 0,
            gap: Gap::NONE,
            blanks: 0,
            last: None,
        }
    }

    fn run(mut self, found: &mut impl FnMut(Hit) -> ControlFlow<()>) -> ControlFlow<()> {
        loop {
            if self.state == self.start {
                self.skip();
            }
            let at = self.cursor.at();
            let Some(char) = self.cursor.next() else { return ControlFlow::Continue(()) };
            if self.state == self.start && self.list.ideographs.rules_out(char) {
                (self.gap, self.blanks, self.last) = (Gap::NONE, 0, Some(Writing::Unspaced));
                continue;
            }
            if self.feed(at, char)
                && let Some(hit) = self.hit()
            {
                found(hit)?;
            }
        }
    }

    /// Passes over ASCII that no word begins with, while no word has begun.
    fn skip(&mut self) {
        let begins = &self.list.begins;
        let Some(byte) = self.cursor.skip_ascii(|byte| !begins[usize::from(byte)]) else { return };
        if byte.is_ascii_alphanumeric() {
            (self.gap, self.blanks, self.last) = (Gap::NONE, 0, Some(Writing::Spaced));
        } else {
            self.gap = Gap::MARK;
        }
    }

    /// Feeds the letters of one scalar value; true when a word may end with the last of them.
    fn feed(&mut self, at: usize, char: char) -> bool {
        let signs = &self.list.signs;
        let (mut is_first, mut may_end) = (true, false);
        pieces(char, signs, |piece| match piece {
            Piece::Separator { gap, .. } => {
                self.gap = self.gap.and(gap);
                self.blanks = self.blanks.saturating_add(u32::from(gap.is_blank()));
            }
            Piece::Letter { char, writing, .. } => {
                self.letter(at, char, writing, std::mem::take(&mut is_first));
                may_end = self.automaton.is_match(self.state);
            }
        });
        may_end
    }

    fn letter(&mut self, at: usize, char: char, writing: Writing, is_first: bool) {
        let is_unspaced = writing == Writing::Unspaced || self.last == Some(Writing::Unspaced);
        if is_unspaced && self.blanks > UNSPACED_BLANKS_MAX {
            self.state = self.start;
        }
        let is_joined = self.gap.is_none() && self.last == Some(Writing::Spaced);
        // Messages are far below 4 GiB; at that bound places would be wrong, and nothing else.
        let at = u32::try_from(at).unwrap_or(u32::MAX);
        self.steps[self.count % WORD_LETTERS_MAX] = Step { at, gap: self.gap, writing, is_joined, is_first };
        self.count += 1;
        let mut utf8 = [0; 4];
        for &byte in char.encode_utf8(&mut utf8).as_bytes() {
            self.state = self.automaton.next_state(Anchored::No, self.state, byte);
        }
        (self.gap, self.blanks, self.last) = (Gap::NONE, 0, Some(writing));
    }

    /// The longest word that ends here and keeps to its edges.
    #[cold]
    fn hit(&self) -> Option<Hit> {
        let after = After::of(self.cursor.clone(), &self.list.signs);
        if after == After::Extends {
            return None;
        }
        let patterns = (0..self.automaton.match_len(self.state)).map(|n| self.automaton.match_pattern(self.state, n));
        let mut words = patterns.map(|pattern| (pattern.as_usize(), &self.list.words[pattern.as_usize()]));
        let (word, first) = words.find_map(|(index, word)| {
            let first = self.count.checked_sub(word.letters)?;
            let begins = self.step(first);
            let keeps_left = begins.is_first && (word.is_open_left || !begins.is_joined);
            let keeps_right = word.is_open_right || after == After::Apart;
            (keeps_left && keeps_right && self.holds_together(word, first)).then_some((index, begins))
        })?;
        Some(Hit { place: first.at as usize..self.cursor.at(), word })
    }

    fn step(&self, index: usize) -> &Step {
        &self.steps[index % WORD_LETTERS_MAX]
    }

    /// Whether what lies between the letters still makes them one word. Signs within a word do. White space between spaced letters, and
    /// the end of a sentence between others, does only where the list has it too, or when all letters stand apart: `b a d` is meant,
    /// `as soon` is not `ass`.
    fn holds_together(&self, word: &Word, first: usize) -> bool {
        let (mut has_strong, mut is_spelled, mut is_spaced) = (false, true, false);
        for letter in 1..word.letters {
            let (before, step) = (self.step(first + letter - 1), self.step(first + letter));
            let belongs = word.breaks >> letter & 1 == 1;
            is_spelled &= belongs || !step.gap.is_none();
            let are_spaced = before.writing != Writing::Unspaced && step.writing != Writing::Unspaced;
            is_spaced |= are_spaced;
            has_strong |= !belongs && step.gap.has(if are_spaced { Gap::SPACE } else { Gap::STOP });
        }
        // Two ideographs on both sides of a full stop are spelled by chance.
        !has_strong || is_spelled && (is_spaced || word.letters > 2)
    }
}

/// What follows a word.
#[derive(Debug, PartialEq, Eq)]
enum After {
    /// Something that is not of the same word.
    Apart,
    /// A letter of a spaced script.
    Joined,
    /// A mark that makes the last letter another one.
    Extends,
}

impl After {
    fn of(rest: Cursor<'_>, signs: &Signs) -> Self {
        for char in rest {
            let mut after = None;
            pieces(char, signs, |piece| {
                after.get_or_insert(match piece {
                    Piece::Letter { extends: true, .. } => Self::Extends,
                    Piece::Letter { writing: Writing::Spaced, .. } => Self::Joined,
                    Piece::Letter { .. } | Piece::Separator { .. } => Self::Apart,
                });
            });
            if let Some(after) = after {
                return after;
            }
        }
        Self::Apart
    }
}
