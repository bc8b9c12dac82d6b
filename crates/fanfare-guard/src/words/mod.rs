//! Moderation: what a message says, and what is done about it.
//!
//! A [`WordList`] finds words wherever and however they are written; a [`Model`] says how much a message looks like those that
//! people called spam. [`Moderation`] holds both and gives a [`Ruling`] on a payload, by the [`Filter`] of its room's namespace.
//! All three are immutable: a reload makes a new one and puts it in the place of the old.
//!
//! Nothing is allocated for a message in which nothing is found, and the time is in proportion to its length.

mod automaton;
mod bayes;
mod list;
mod mask;
mod normalise;
mod text;
mod tokens;
mod train;
mod verdict;

#[cfg(test)]
mod tests;

pub use automaton::WordList;
pub use bayes::{MODEL_BYTES_MAX, Model, ModelError, Score};
pub use list::{WORDS_BYTES_MAX, WORDS_MAX, WordListError, WordProblem};
pub use train::{Counts, Exam, Label, Training, is_held_out, model_of};
pub use verdict::{Cause, Filter, Finding, Moderation, Ruling, UnknownFilter};
