//! Training: from messages that people have judged to a model file, and how well that does on messages it has not seen.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::bayes::{MAGIC, MODEL_BYTES_MAX, Model, ModelError};
use super::text::Cursor;
use super::tokens::{FeatureHash, Names, tokens};

/// What a person said a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Label {
    /// Unwanted.
    Spam,
    /// Wanted.
    Ham,
}

/// Features held at once. Beyond, those that only one message had are forgotten: rare ones say least.
const FEATURES_MAX: usize = 4_000_000;

/// How many messages of each kind there were: all of them, or those that had one feature.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of spam.
    pub spam: u32,
    /// Of ham.
    pub ham: u32,
}

impl Counts {
    fn add(&mut self, label: Label) {
        match label {
            Label::Spam => self.spam = self.spam.saturating_add(1),
            Label::Ham => self.ham = self.ham.saturating_add(1),
        }
    }

    fn all(self) -> u64 {
        u64::from(self.spam) + u64::from(self.ham)
    }
}

/// Counts features.
#[derive(Debug, Default)]
pub struct Training {
    messages: Counts,
    features: HashMap<String, Counts>,
}

impl Training {
    /// Learns from one message.
    pub fn learn(&mut self, text: &str, label: Label) {
        let mut names = Names::default();
        tokens(Cursor::plain(text), &mut names);
        self.messages.add(label);
        names.features.sort_unstable();
        names.features.dedup();
        for feature in names.features {
            self.features.entry(feature).or_default().add(label);
        }
        if self.features.len() > FEATURES_MAX {
            // To half, so that it is not done for every message from here on.
            self.forget(FEATURES_MAX / 2);
        }
    }

    /// Keeps `features_max` features at most: drops those of one message, then of two, and so on.
    fn forget(&mut self, features_max: usize) {
        let mut least = 2;
        while self.features.len() > features_max {
            self.features.retain(|_, counts| counts.all() >= least);
            least += 1;
        }
    }

    /// Messages learnt from.
    #[must_use]
    pub fn messages(&self) -> Counts {
        self.messages
    }

    /// Features known so far.
    #[must_use]
    pub fn features(&self) -> usize {
        self.features.len()
    }

    /// The model file: a text from which spam is told at `threshold`, a probability strictly between 0 and 1. Features are in the order
    /// of their names, so the same messages always make the same file; if they do not fit a file, the rarest are left out.
    #[must_use]
    pub fn to_file(mut self, threshold: f32) -> String {
        loop {
            let file = self.write(threshold);
            if file.len() <= MODEL_BYTES_MAX {
                return file;
            }
            let half = self.features.len() / 2;
            self.forget(half);
        }
    }

    fn write(&self, threshold: f32) -> String {
        let mut names: Vec<_> = self.features.iter().collect();
        names.sort_unstable_by_key(|(name, _)| *name);
        let Counts { spam, ham } = self.messages;
        let mut file = format!("{MAGIC}\n{threshold} {spam} {ham}\n");
        for (name, Counts { spam, ham }) in names {
            // Writing to a String cannot fail.
            let _ = writeln!(file, "{spam}\t{ham}\t{name}");
        }
        file
    }
}

/// Whether a message is held out of training to be judged afterwards: a share of all, chosen by the message alone and a seed. So the
/// same messages always split in the same way, and one that occurs twice is never on both sides.
#[must_use]
pub fn is_held_out(text: &str, share: f64, seed: u64) -> bool {
    let hash = text.chars().fold(FeatureHash::EMPTY, FeatureHash::with).mixed();
    let mixed = (hash ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let place = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 11;
    (place as f64) < share * (1_u64 << 53) as f64
}

/// How a model judged messages whose labels are known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exam {
    /// Spam taken for spam.
    pub spam_found: u32,
    /// Spam taken for ham.
    pub spam_missed: u32,
    /// Ham taken for spam.
    pub ham_blamed: u32,
    /// Ham taken for ham.
    pub ham_passed: u32,
}

impl Exam {
    /// Lets `model` judge one message.
    pub fn ask(&mut self, model: &Model, text: &str, label: Label) {
        let count = match (label, model.score_text(text).is_spam) {
            (Label::Spam, true) => &mut self.spam_found,
            (Label::Spam, false) => &mut self.spam_missed,
            (Label::Ham, true) => &mut self.ham_blamed,
            (Label::Ham, false) => &mut self.ham_passed,
        };
        *count += 1;
    }

    /// Messages asked.
    #[must_use]
    pub fn messages(&self) -> u64 {
        [self.spam_found, self.spam_missed, self.ham_blamed, self.ham_passed].map(u64::from).iter().sum()
    }

    /// Share of messages judged rightly; `None` without any.
    #[must_use]
    pub fn accuracy(&self) -> Option<f64> {
        share(self.spam_found + self.ham_passed, self.spam_missed + self.ham_blamed)
    }

    /// Share of spam among what was taken for it; `None` when nothing was.
    #[must_use]
    pub fn precision(&self) -> Option<f64> {
        share(self.spam_found, self.ham_blamed)
    }

    /// Share of spam that was found; `None` when there was none.
    #[must_use]
    pub fn recall(&self) -> Option<f64> {
        share(self.spam_found, self.spam_missed)
    }
}

fn share(right: u32, wrong: u32) -> Option<f64> {
    let all = f64::from(right) + f64::from(wrong);
    (all > 0.0).then(|| f64::from(right) / all)
}

/// The model of a file that [`Training::to_file`] wrote.
///
/// # Errors
/// None for such a file; see [`Model::parse`].
pub fn model_of(file: &str) -> Result<Model, ModelError> {
    Model::parse(file.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trained(messages: &[(&str, Label)]) -> (String, Model) {
        let mut training = Training::default();
        for &(text, label) in messages {
            training.learn(text, label);
        }
        let file = training.to_file(0.8);
        let model = model_of(&file).unwrap();
        (file, model)
    }

    const MESSAGES: [(&str, Label); 6] = [
        ("Win free money", Label::Spam),
        ("免费领取红包", Label::Spam),
        ("free free free", Label::Spam),
        ("see you at lunch", Label::Ham),
        ("今天一起吃饭吗", Label::Ham),
        ("the money for lunch", Label::Ham),
    ];

    #[test]
    fn what_was_learnt_is_told_apart() {
        let (file, model) = trained(&MESSAGES);
        assert!(file.starts_with("fanfare-model 1\n0.8 3 3\n0\t1\tat\n0\t1\tat lunch\n"), "{file}");
        assert!(file.contains("\n2\t0\tfree\n") && file.contains("\n1\t0\t免 费\n"), "{file}");
        for (text, spam) in
            [("free money!", true), ("红包免费", true), ("一起吃饭", false), ("lunch?", false), ("unheard of", false)]
        {
            assert_eq!(model.score_text(text).is_spam, spam, "{text}: {:?}", model.score_text(text));
        }
        let mut reversed = MESSAGES;
        reversed.reverse();
        assert_eq!(trained(&reversed).0, file, "the order of messages does not matter");
    }

    #[test]
    fn an_exam_counts_what_it_says() {
        let (_, model) = trained(&MESSAGES);
        let mut exam = Exam::default();
        assert_eq!((exam.accuracy(), exam.precision(), exam.recall()), (None, None, None));
        for (text, label) in MESSAGES.into_iter().chain([("free lunch at", Label::Spam), ("win free", Label::Ham)]) {
            exam.ask(&model, text, label);
        }
        assert_eq!(exam, Exam { spam_found: 3, spam_missed: 1, ham_blamed: 1, ham_passed: 3 });
        assert_eq!(exam.messages(), 8);
        assert_eq!((exam.accuracy(), exam.precision(), exam.recall()), (Some(0.75), Some(0.75), Some(0.75)));
    }

    #[test]
    fn messages_split_by_themselves() {
        let texts: Vec<String> = (0..10_000).map(|n| format!("message {n}")).collect();
        let held = |share, seed| texts.iter().filter(|text| is_held_out(text, share, seed)).count();
        assert_eq!((held(0.0, 1), held(1.0, 1)), (0, 10_000));
        for seed in 0..5 {
            assert!((1_800..2_200).contains(&held(0.2, seed)), "{}", held(0.2, seed));
        }
        assert!(texts.iter().any(|text| is_held_out(text, 0.5, 1) != is_held_out(text, 0.5, 2)));
    }

    #[test]
    fn the_rarest_features_go_first() {
        let mut training = Training::default();
        for n in 0..10 {
            training.learn(&format!("often rare{n}"), Label::Ham);
        }
        training.forget(3);
        assert_eq!(training.features.keys().collect::<Vec<_>>(), ["often"]);
    }
}
