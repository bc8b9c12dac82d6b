//! A naive Bayes classifier: how much more a text looks like spam than like ham, from the tokens it has.
//!
//! Each token and each pair of neighbours counts once, with the logarithm of how much more often messages of spam had it in
//! training. Both kinds are taken for equally likely beforehand: what share of a training file is spam says nothing about a room.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use super::text::Cursor;
use super::tokens::{FeatureHash, Hashes, tokens};

/// First line of a model file.
pub(super) const MAGIC: &str = "fanfare-model 1";

/// Bytes of a model file.
pub const MODEL_BYTES_MAX: usize = 32 << 20;

/// A model that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// It is longer than [`MODEL_BYTES_MAX`].
    #[error("{0} bytes; at most {MODEL_BYTES_MAX} are taken")]
    TooManyBytes(usize),
    /// Its first line is another one.
    #[error("this is no model of this version: the first line must be `{MAGIC}`; make one with `fanfare train`")]
    Unknown,
    /// A line is not of the format.
    #[error("line {line}: {problem}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// A trained classifier. Immutable.
pub struct Model {
    /// By [`FeatureHash::mixed`]: the logarithm of the odds.
    weights: HashMap<u64, f32, BuildHasherDefault<Hashed>>,
    /// A text is spam from this score on.
    threshold: f32,
}

/// Passes hashes through: the keys are hashes already.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.is_empty(), "only whole hashes are keys");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Bits of the filter that lets each feature of a text count once. Two features of one bit count as one: in a message of a hundred
/// words that is one in forty, and a message of megabytes has no more than this many.
const SEEN_BITS: usize = 8_192;

impl Model {
    /// Reads a model file.
    ///
    /// # Errors
    /// [`ModelError`]: it is of another version, too long, or a line is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, ModelError> {
        if bytes.len() > MODEL_BYTES_MAX {
            return Err(ModelError::TooManyBytes(bytes.len()));
        }
        let mut lines = bytes.split(|&byte| byte == b'\n').zip(1..);
        if lines.next().is_none_or(|(line, _)| line.trim_ascii_end() != MAGIC.as_bytes()) {
            return Err(ModelError::Unknown);
        }
        let wrong = |line, problem| ModelError::Line { line, problem };
        let (head, _) = lines.next().ok_or(ModelError::Unknown)?;
        let Head { threshold, spam, ham } =
            Head::parse(head).ok_or(wrong(2, "it must be: threshold, messages of spam, messages of ham"))?;
        let mut weights = HashMap::default();
        for (line, number) in lines.filter(|(line, _)| !line.is_empty()) {
            let feature =
                Feature::parse(line).ok_or(wrong(number, "it must be: messages of spam, messages of ham, feature"))?;
            if feature.spam > spam || feature.ham > ham {
                return Err(wrong(number, "a feature was in more messages than there were"));
            }
            weights.insert(FeatureHash::of(feature.name).mixed(), weight(feature.spam, spam, feature.ham, ham));
        }
        Ok(Self { weights, threshold: logit(threshold) })
    }

    /// How many features it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// True when it knows no feature, and so takes nothing for spam.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// The score of texts that belong together.
    pub(super) fn score<'a>(&self, texts: impl Iterator<Item = Cursor<'a>>) -> Score {
        let mut seen = [0_u64; SEEN_BITS / 64];
        let mut log_odds = 0.0;
        let mut hashes = Hashes::new(|feature: FeatureHash| {
            let feature = feature.mixed();
            let bit = (feature >> 40) as usize % SEEN_BITS;
            let (word, mask) = (&mut seen[bit / 64], 1 << (bit % 64));
            if *word & mask == 0
                && let Some(weight) = self.weights.get(&feature)
            {
                *word |= mask;
                log_odds += weight;
            }
        });
        for text in texts {
            tokens(text, &mut hashes);
        }
        Score { log_odds, is_spam: log_odds >= self.threshold }
    }

    /// The score of a plain text.
    #[must_use]
    pub fn score_text(&self, text: &str) -> Score {
        self.score(std::iter::once(Cursor::plain(text)))
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("features", &self.weights.len()).finish_non_exhaustive()
    }
}

/// What a model says of a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Logarithm of how much likelier it is spam than ham; 0: it cannot tell.
    pub log_odds: f32,
    /// It is over the model's threshold.
    pub is_spam: bool,
}

impl Score {
    /// The probability of spam, 0 to 1, as naive Bayes sees it: with long texts it is surer than it has reason to be.
    #[must_use]
    pub fn probability(self) -> f32 {
        1.0 / (1.0 + (-self.log_odds).exp())
    }
}

/// The second line of a model file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Head {
    /// Probability, strictly between 0 and 1.
    pub(super) threshold: f32,
    /// Messages of training.
    pub(super) spam: u32,
    pub(super) ham: u32,
}

impl Head {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut words = str::from_utf8(line).ok()?.split_whitespace();
        let head = Self {
            threshold: words
                .next()?
                .parse()
                .ok()
                .filter(|threshold| (0.0..1.0).contains(threshold) && *threshold > 0.0)?,
            // Without messages of both kinds there are no shares to compare.
            spam: words.next()?.parse().ok().filter(|&spam| spam > 0)?,
            ham: words.next()?.parse().ok().filter(|&ham| ham > 0)?,
        };
        words.next().is_none().then_some(head)
    }
}

/// Another line of it.
struct Feature<'a> {
    spam: u32,
    ham: u32,
    name: &'a str,
}

impl<'a> Feature<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = str::from_utf8(line).ok()?.split('\t');
        let feature = Self {
            spam: parts.next()?.parse().ok()?,
            ham: parts.next()?.parse().ok()?,
            name: parts.next().filter(|name| !name.is_empty())?,
        };
        parts.next().is_none().then_some(feature)
    }
}

/// What one feature says: how much larger a share of spam had it than of ham. It is counted as if two more messages had had it,
/// split between spam and ham as all messages are: so a feature that one kind never had says much and not everything, and one that
/// was hardly ever seen says little, however unequal the two kinds are.
fn weight(spam: u32, all_spam: u32, ham: u32, all_ham: u32) -> f32 {
    let all = f64::from(all_spam) + f64::from(all_ham);
    let share = |with: u32, of: u32| f64::from(with) / f64::from(of) + 2.0 / all;
    (share(spam, all_spam) / share(ham, all_ham)).ln() as f32
}

/// The log odds of a probability.
fn logit(probability: f32) -> f32 {
    (probability / (1.0 - probability)).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: &str = "fanfare-model 1\n0.9 10 10\n9\t0\tfree\n9\t0\t免 费\n0\t9\thello\n5\t5\tthe\n";

    fn score(text: &str) -> Score {
        Model::parse(MODEL.as_bytes()).unwrap().score_text(text)
    }

    #[test]
    fn features_weigh_by_their_shares() {
        for (text, spam) in [
            ("FREE", true),
            ("免费", true),
            ("免 费", true),
            ("hello", false),
            ("the", false),
            ("", false),
            ("费免", false),
        ] {
            assert_eq!(score(text).is_spam, spam, "{text}: {:?}", score(text));
        }
        let ten = 10_f32.ln();
        assert!((score("free").log_odds - ten).abs() < 1e-5);
        assert!((score("hello").log_odds + ten).abs() < 1e-5);
        assert_eq!(score("the").log_odds, 0.0);
        assert_eq!(score("free hello").log_odds, 0.0);
        assert_eq!(score("free free, free!"), score("free"));
        let model = Model::parse(MODEL.as_bytes()).unwrap();
        let apart = model.score(["免", "费"].into_iter().map(Cursor::plain));
        assert_eq!(apart.log_odds, 0.0, "the end of one string and the begin of the next are no neighbours");
        assert!((score("free").probability() - 10.0 / 11.0).abs() < 1e-5);
    }

    #[test]
    fn unequal_kinds_do_not_lean_to_the_rarer() {
        // A tenth of the messages is spam.
        let weight = |spam, ham| super::weight(spam, 100, ham, 900);
        assert!(weight(0, 1) < 0.0 && weight(1, 0) > 0.0);
        assert!(weight(1, 9).abs() < 1e-6, "the same share of both");
        assert!(weight(10, 0) > weight(1, 0) && weight(0, 10) < weight(0, 1));
        assert!(weight(0, 1) > -0.5, "one message is no proof");
    }

    #[test]
    fn files_of_another_form_are_refused() {
        let line = |line, problem| ModelError::Line { line, problem };
        let head = "it must be: threshold, messages of spam, messages of ham";
        let feature = "it must be: messages of spam, messages of ham, feature";
        for (text, error) in [
            ("", ModelError::Unknown),
            ("fanfare-model 2\n0.9 1 1\n", ModelError::Unknown),
            ("fanfare-model 1", ModelError::Unknown),
            ("fanfare-model 1\n", line(2, head)),
            ("fanfare-model 1\n1.0 1 1\n", line(2, head)),
            ("fanfare-model 1\n0 1 1\n", line(2, head)),
            ("fanfare-model 1\nNaN 1 1\n", line(2, head)),
            ("fanfare-model 1\n0.5 1\n", line(2, head)),
            ("fanfare-model 1\n0.5 0 1\n", line(2, head)),
            ("fanfare-model 1\n0.5 1 0\n", line(2, head)),
            ("fanfare-model 1\n0.5 1 1 1\n", line(2, head)),
            ("fanfare-model 1\n0.5 1 1\n1\t1\n", line(3, feature)),
            ("fanfare-model 1\n0.5 1 1\n\n-1\t1\ta\n", line(4, feature)),
            ("fanfare-model 1\n0.5 1 1\n1\t1\t\n", line(3, feature)),
            ("fanfare-model 1\n0.5 1 1\n2\t1\ta\n", line(3, "a feature was in more messages than there were")),
        ] {
            assert_eq!(Model::parse(text.as_bytes()).unwrap_err(), error, "{text:?}");
        }
        let long = vec![b' '; MODEL_BYTES_MAX + 1];
        assert_eq!(Model::parse(&long).unwrap_err(), ModelError::TooManyBytes(long.len()));
        assert!(Model::parse(b"fanfare-model 1\r\n0.5 1 1\r\n").unwrap().is_empty());
    }
}
