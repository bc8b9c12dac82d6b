//! Word lists as people write them: a word a line.

use std::collections::HashMap;
use std::fmt;

use super::normalise::{Piece, Signs, Writing, pieces};

/// Letters of one word.
pub(super) const WORD_LETTERS_MAX: usize = 64;

/// A list that cannot be used, with every line that is wrong (the first ten of them).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.lines_text())]
pub struct WordListError {
    /// Number of the line, from 1, and what is wrong there; line 0 stands for the list as a whole.
    pub problems: Vec<(usize, WordProblem)>,
}

/// What is wrong with a line of a word list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WordProblem {
    /// It is not UTF-8.
    NotUtf8,
    /// Nothing but what is passed over between letters.
    NoLetters,
    /// Over 64 letters.
    TooLong,
    /// The list has over [`WORDS_MAX`] words.
    TooManyWords,
    /// The list has over [`WORDS_BYTES_MAX`] bytes.
    TooManyBytes(usize),
    /// The automaton could not be made.
    NotCompiled(String),
}

/// Words of one list.
pub const WORDS_MAX: usize = 200_000;

/// Bytes of one list.
pub const WORDS_BYTES_MAX: usize = 4 << 20;

/// Problems that one error names.
const PROBLEMS_MAX: usize = 10;

impl fmt::Display for WordProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 => f.write_str("not UTF-8; save the list as UTF-8"),
            Self::NoLetters => f.write_str("a word needs a letter, a digit or an emoji"),
            Self::TooLong => write!(f, "over {WORD_LETTERS_MAX} letters; shorten it to the part that matters"),
            Self::TooManyWords => write!(f, "over {WORDS_MAX} words; at most so many are taken"),
            Self::TooManyBytes(bytes) => write!(f, "{bytes} bytes; at most {WORDS_BYTES_MAX} are taken"),
            Self::NotCompiled(why) => write!(f, "the list cannot be compiled: {why}"),
        }
    }
}

impl WordListError {
    pub(super) fn whole(problem: WordProblem) -> Self {
        Self { problems: vec![(0, problem)] }
    }

    fn lines_text(&self) -> String {
        let line = |(line, problem): &(usize, WordProblem)| match line {
            0 => problem.to_string(),
            _ => format!("line {line}: {problem}"),
        };
        self.problems.iter().map(line).collect::<Vec<_>>().join("; ")
    }
}

/// A word, ready to be compared.
#[derive(Debug, Clone)]
pub(super) struct Word {
    /// As the list has it, for people.
    pub(super) written: Box<str>,
    /// How many letters it has.
    pub(super) letters: usize,
    /// Bit `n`: the list itself has something between letters `n - 1` and `n`.
    pub(super) breaks: u64,
    /// It may go on to the left of where it was found.
    pub(super) is_open_left: bool,
    /// It may go on to the right.
    pub(super) is_open_right: bool,
}

/// The words of a list and what their letters are.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) words: Vec<Word>,
    /// The letters of each, in the same order.
    pub(super) letters: Vec<String>,
    pub(super) signs: Signs,
}

/// Reads a list. Lines that are empty or begin with `#` are not words. A `*` at an end of a word lets it go on there.
pub(super) fn read(bytes: &[u8]) -> Result<Words, WordListError> {
    if bytes.len() > WORDS_BYTES_MAX {
        return Err(WordListError::whole(WordProblem::TooManyBytes(bytes.len())));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut problems = Vec::new();
    let mut lines = Vec::new();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        match str::from_utf8(line).map(str::trim) {
            Ok(line) if line.is_empty() || line.starts_with('#') => {}
            Ok(line) => lines.push((index + 1, line)),
            Err(_) => problems.push((index + 1, WordProblem::NotUtf8)),
        }
    }
    if lines.len() > WORDS_MAX {
        problems.push((lines[WORDS_MAX].0, WordProblem::TooManyWords));
        lines.truncate(WORDS_MAX);
    }
    // First the signs of all words: what one word means is a letter in all.
    let signs = Signs::new(lines.iter().flat_map(|(_, line)| signs_of(trimmed(line).0)).collect());
    let mut words = Words { signs, ..Words::default() };
    let mut known = HashMap::new();
    for (number, line) in lines {
        if let Err(problem) = words.add(line, &mut known) {
            problems.push((number, problem));
        }
    }
    problems.sort_by_key(|&(line, _)| line);
    problems.truncate(PROBLEMS_MAX);
    if problems.is_empty() { Ok(words) } else { Err(WordListError { problems }) }
}

/// A line without its stars, and whether it had them on the left and on the right.
fn trimmed(line: &str) -> (&str, bool, bool) {
    let (left, line) = line.strip_prefix('*').map_or((false, line), |rest| (true, rest));
    let (right, line) = line.strip_suffix('*').map_or((false, line), |rest| (true, rest));
    (line, left, right)
}

fn signs_of(word: &str) -> Vec<char> {
    let mut signs = Vec::new();
    let mut has_letter = false;
    for char in word.chars() {
        pieces(char, &Signs::default(), |piece| match piece {
            Piece::Letter { .. } => has_letter = true,
            Piece::Separator { char, .. } if Signs::counts(char) => {
                has_letter |= !char.is_ascii();
                signs.push(char);
            }
            Piece::Separator { .. } => {}
        });
    }
    // A line of ASCII signs alone is no word; letting it in would make them letters everywhere.
    if has_letter { signs } else { Vec::new() }
}

impl Words {
    fn add(&mut self, line: &str, known: &mut HashMap<String, usize>) -> Result<(), WordProblem> {
        let (word, left, right) = trimmed(line);
        let mut letters = String::new();
        let mut writings = Vec::new();
        let (mut breaks, mut is_break) = (0_u64, false);
        for char in word.chars() {
            pieces(char, &self.signs, |piece| match piece {
                Piece::Separator { .. } => is_break = true,
                Piece::Letter { char, writing, .. } => {
                    if std::mem::take(&mut is_break) && (1..WORD_LETTERS_MAX).contains(&writings.len()) {
                        breaks |= 1 << writings.len();
                    }
                    letters.push(char);
                    writings.push(writing);
                }
            });
        }
        let (Some(first), Some(last)) = (writings.first(), writings.last()) else { return Err(WordProblem::NoLetters) };
        if writings.len() > WORD_LETTERS_MAX {
            return Err(WordProblem::TooLong);
        }
        let is_open_left = left || *first == Writing::Unspaced;
        let is_open_right = right || *last == Writing::Unspaced;
        if let Some(&index) = known.get(&letters) {
            // Written twice, it holds wherever one of the lines does.
            let word: &mut Word = &mut self.words[index];
            word.is_open_left |= is_open_left;
            word.is_open_right |= is_open_right;
            word.breaks |= breaks;
            return Ok(());
        }
        let word = Word { written: line.into(), letters: writings.len(), breaks, is_open_left, is_open_right };
        known.insert(letters.clone(), self.words.len());
        self.words.push(word);
        self.letters.push(letters);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(list: &[u8]) -> String {
        read(list).unwrap_err().to_string()
    }

    #[test]
    fn lines_are_words_comments_or_nothing() {
        let words = read("\u{feff}# bad words\n\n  bad \r\n坏蛋\n*ass*\nfuck off\nBAD*\n".as_bytes()).unwrap();
        let shown: Vec<_> = words
            .words
            .iter()
            .zip(&words.letters)
            .map(|(word, letters)| (letters.as_str(), word.is_open_left, word.is_open_right, word.breaks))
            .collect();
        let expected = [
            ("bad", false, true, 0),
            ("坏蛋", true, true, 0),
            ("ass", true, true, 0),
            ("fuckoff", false, false, 1 << 4),
        ];
        assert_eq!(shown, expected);
        assert!(read(b"").unwrap().words.is_empty());
    }

    #[test]
    fn wrong_lines_are_named() {
        assert_eq!(problems(b"good\n\xff\xfe\n"), "line 2: not UTF-8; save the list as UTF-8");
        assert_eq!(problems(b"ok\n\n---\n"), "line 3: a word needs a letter, a digit or an emoji");
        assert!(problems(b"***").starts_with("line 1: a word needs"));
        assert!(problems("x".repeat(65).as_bytes()).starts_with("line 1: over 64 letters"));
        assert!(read("x".repeat(64).as_bytes()).is_ok());
        assert_eq!(read("-\n".repeat(20).as_bytes()).unwrap_err().problems.len(), 10);
    }

    #[test]
    fn lists_are_bounded() {
        let many: String = (0..=WORDS_MAX).map(|n| format!("w{n}\n")).collect();
        assert_eq!(read(many.as_bytes()).unwrap_err().problems, [(WORDS_MAX + 1, WordProblem::TooManyWords)]);
        let long = vec![b'\n'; WORDS_BYTES_MAX + 1];
        assert_eq!(read(&long).unwrap_err(), WordListError::whole(WordProblem::TooManyBytes(long.len())));
        assert!(read(&long[1..]).is_ok());
    }
}
