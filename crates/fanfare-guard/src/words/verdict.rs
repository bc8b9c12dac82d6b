//! From what was found to what is done.

use std::fmt;
use std::ops::ControlFlow;
use std::str::FromStr;

use bytes::Bytes;
use fanfare_protocol::{Payload, PayloadRef};
use sha2::{Digest as _, Sha256};

use super::automaton::{Hit, WordList};
use super::bayes::{Model, ModelError};
use super::list::WordListError;
use super::mask;
use super::text::{Cursor, JsonStrings};

/// What is done about messages that moderation finds fault with, in the rooms of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Filter {
    /// Nothing is looked at.
    #[default]
    Off,
    /// They are counted.
    Observe,
    /// Words of the list are replaced by stars. What the model takes for spam has no words to replace, and is refused.
    Mask,
    /// They are refused.
    Reject,
    /// They wait for a moderator.
    Hold,
}

/// A word that is none of the five.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of off, observe, mask, reject, hold")]
pub struct UnknownFilter(String);

impl FromStr for Filter {
    type Err = UnknownFilter;

    fn from_str(word: &str) -> Result<Self, UnknownFilter> {
        Ok(match word {
            "off" => Self::Off,
            "observe" => Self::Observe,
            "mask" => Self::Mask,
            "reject" => Self::Reject,
            "hold" => Self::Hold,
            _ => return Err(UnknownFilter(word.to_owned())),
        })
    }
}

/// What found fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The word list.
    Words,
    /// The model.
    Model,
    /// Both of them.
    Both,
}

impl Cause {
    /// Labels of all causes, for metrics that start at zero.
    pub const LABELS: [&'static str; 3] = ["words", "model", "both"];

    /// Place of this cause in [`Self::LABELS`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Stable label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        Self::LABELS[self.index()]
    }
}

/// What was found in a message; for metrics and moderators, never for the sender: it would teach the way around.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// What found it.
    pub cause: Cause,
    /// The first word that was found, as the list has it.
    pub word: Option<Box<str>>,
    /// How likely the model takes it for spam, 0 to 1, when that is over its threshold.
    pub spam: Option<f32>,
}

/// What is to be done about a message.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a ruling that nobody looks at moderates nothing"]
pub enum Ruling {
    /// Nothing was found.
    Pass,
    /// It is published and counted.
    Observe(Finding),
    /// This is published in its place.
    Mask(Finding, Payload),
    /// Its sender is told that it was refused.
    Reject(Finding),
    /// It waits for a moderator.
    Hold(Finding),
}

/// What a node's filters know: a word list, a model, both or neither. Immutable.
#[derive(Debug, Default)]
pub struct Moderation {
    words: Option<Versioned<WordList>>,
    model: Option<Versioned<Model>>,
}

#[derive(Debug)]
struct Versioned<T> {
    value: T,
    /// The first 12 hexadecimal digits of the file's SHA-256, as `sha256sum` prints it.
    version: String,
}

impl<T> Versioned<T> {
    fn new(value: T, file: &[u8]) -> Self {
        let digest = Sha256::digest(file);
        Self { value, version: digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect() }
    }
}

impl Moderation {
    /// With the words of a list; see [`WordList::parse`].
    ///
    /// # Errors
    /// Those of the list.
    pub fn with_words(self, file: &[u8]) -> Result<Self, WordListError> {
        Ok(Self { words: Some(Versioned::new(WordList::parse(file)?, file)), ..self })
    }

    /// With a model; see [`Model::parse`].
    ///
    /// # Errors
    /// Those of the model.
    pub fn with_model(self, file: &[u8]) -> Result<Self, ModelError> {
        Ok(Self { model: Some(Versioned::new(Model::parse(file)?, file)), ..self })
    }

    /// The list.
    #[must_use]
    pub fn words(&self) -> Option<&WordList> {
        self.words.as_ref().map(|words| &words.value)
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> Option<&Model> {
        self.model.as_ref().map(|model| &model.value)
    }

    /// Which file the list was read from: the beginning of its SHA-256. Empty without a list.
    #[must_use]
    pub fn words_version(&self) -> &str {
        self.words.as_ref().map_or("", |words| &words.version)
    }

    /// The same of the model.
    #[must_use]
    pub fn model_version(&self) -> &str {
        self.model.as_ref().map_or("", |model| &model.version)
    }

    /// What is to be done about a message where `filter` holds. The text and the string values of JSON are looked at; names of members
    /// are the program's, not the user's, and binary messages are no text.
    pub fn judge(&self, payload: PayloadRef<'_>, filter: Filter) -> Ruling {
        if filter == Filter::Off {
            return Ruling::Pass;
        }
        match payload {
            PayloadRef::Json(text) => self.judge_text(&Text { text, is_json: true }, filter),
            PayloadRef::Text(text) => self.judge_text(&Text { text, is_json: false }, filter),
            PayloadRef::Binary(_) => Ruling::Pass,
        }
    }

    fn judge_text(&self, text: &Text<'_>, filter: Filter) -> Ruling {
        let word = self.words().and_then(|list| Some((list, text.first(list)?)));
        // Those are decided by a word alone.
        let is_decided = word.is_some() && matches!(filter, Filter::Reject | Filter::Hold);
        let score = self.model().filter(|_| !is_decided).map(|model| model.score(text.parts()));
        let spam = score.filter(|score| score.is_spam).map(|score| score.probability());
        let cause = match (word, spam) {
            (None, None) => return Ruling::Pass,
            (Some(_), None) => Cause::Words,
            (None, Some(_)) => Cause::Model,
            (Some(_), Some(_)) => Cause::Both,
        };
        let finding = Finding { cause, word: word.map(|(list, word)| list.written(word).into()), spam };
        match (filter, word) {
            (Filter::Off, _) => Ruling::Pass,
            (Filter::Observe, _) => Ruling::Observe(finding),
            (Filter::Mask, Some((list, _))) if spam.is_none() => Ruling::Mask(finding, text.masked(list)),
            (Filter::Mask | Filter::Reject, _) => Ruling::Reject(finding),
            (Filter::Hold, _) => Ruling::Hold(finding),
        }
    }
}

/// A message as written.
#[derive(Clone, Copy)]
struct Text<'a> {
    text: &'a str,
    is_json: bool,
}

impl<'a> Text<'a> {
    /// The parts a user wrote, each on its own: no word reaches from one into the next.
    fn parts(&self) -> impl Iterator<Item = Cursor<'a>> + use<'a> {
        let text = self.text;
        let strings = self.is_json.then(|| JsonStrings::new(text).map(move |content| Cursor::json(text, content)));
        let plain = (!self.is_json).then(|| Cursor::plain(text));
        strings.into_iter().flatten().chain(plain)
    }

    /// Whether no word of a list without ASCII can be in it. A look at eight bytes a time.
    fn is_plainly_clean(&self, list: &WordList) -> bool {
        list.begins_beyond_ascii() && self.text.is_ascii() && !(self.is_json && self.text.contains("\\u"))
    }

    fn each_hit(&self, list: &WordList, mut found: impl FnMut(Hit) -> ControlFlow<()>) {
        if self.is_plainly_clean(list) {
            return;
        }
        // Whether somebody has heard enough is his affair.
        let _ = self.parts().try_for_each(|part| list.scan(part, &mut found));
    }

    /// The word found first.
    fn first(&self, list: &WordList) -> Option<usize> {
        let mut first = None;
        self.each_hit(list, |hit| {
            first = Some(hit.word);
            ControlFlow::Break(())
        });
        first
    }

    fn masked(&self, list: &WordList) -> Payload {
        let mut places = Vec::new();
        self.each_hit(list, |hit| {
            mask::add(&mut places, hit.place);
            ControlFlow::Continue(())
        });
        let cursor = if self.is_json { Cursor::json(self.text, 0..0) } else { Cursor::plain(self.text) };
        let bytes = Bytes::from(mask::masked(self.text, &cursor, &places));
        if self.is_json { Payload::Json(bytes) } else { Payload::Text(bytes) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(word) = &self.word {
            write!(f, "word `{word}`")?;
        }
        match self.spam {
            Some(spam) if self.word.is_some() => write!(f, ", spam {spam:.3}"),
            Some(spam) => write!(f, "spam {spam:.3}"),
            None => Ok(()),
        }
    }
}
