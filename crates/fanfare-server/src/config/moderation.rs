//! The files that moderation reads: the word list and the model, checked and compiled with the configuration that names them.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;

use fanfare_guard::words::{MODEL_BYTES_MAX, WORDS_BYTES_MAX};
use fanfare_guard::{Filter, Moderation};

use super::raw::{self, Raw};
use super::value::Setting;
use super::{Config, Problem};

/// Reads both files. What is wrong with them goes to `problems`, with file and line.
pub(super) fn load(keys: &raw::Moderation, problems: &mut Vec<Problem>) -> Arc<Moderation> {
    let mut moderation = Moderation::default();
    if let Some(bytes) = read("words_file", &keys.words_file, WORDS_BYTES_MAX, problems) {
        match Moderation::default().with_words(&bytes) {
            Ok(with_words) => moderation = with_words,
            Err(error) => {
                let file = &keys.words_file.value;
                for (line, problem) in error.problems {
                    let place = if line == 0 { file.clone() } else { format!("{file}:{line}") };
                    problem_of("words_file", &keys.words_file, &format!("{place}: {problem}"), problems);
                }
            }
        }
    }
    if let Some(bytes) = read("model_file", &keys.model_file, MODEL_BYTES_MAX, problems) {
        match std::mem::take(&mut moderation).with_model(&bytes) {
            Ok(with_model) => moderation = with_model,
            Err(error) => {
                let text = format!("{}: {error}", keys.model_file.value);
                problem_of("model_file", &keys.model_file, &text, problems);
            }
        }
    }
    Arc::new(moderation)
}

/// The file that a key names; nothing when it names none, or when it cannot be read.
fn read(key: &str, setting: &Setting<String>, max: usize, problems: &mut Vec<Problem>) -> Option<Vec<u8>> {
    if setting.value.is_empty() {
        return None;
    }
    // One more byte than may be tells that there are too many.
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(&setting.value)?.take(max as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            problem_of(key, setting, &format!("{}: {error}", setting.value), problems);
            None
        }
    }
}

fn problem_of(key: &str, setting: &Setting<String>, text: &str, problems: &mut Vec<Problem>) {
    problems.push(Problem::new(setting.origin.clone(), format!("`moderation.{key}`: {text}")));
}

/// A filter that knows nothing would let everything through and look as if it did not.
pub(super) fn filters_without_files(raw: &Raw, problems: &mut Vec<Problem>) {
    if !raw.moderation.words_file.value.is_empty() || !raw.moderation.model_file.value.is_empty() {
        return;
    }
    for (name, rules) in &raw.namespaces {
        if rules.filter.value != raw::Filter::Off {
            let path = raw::key_path(&raw::namespace_path(name), "filter");
            let text = format!(
                "`{path}` needs a word list or a model: set `moderation.words_file` or `moderation.model_file`"
            );
            problems.push(Problem::new(rules.filter.origin.clone(), text));
        }
    }
}

pub(super) fn filter(filter: raw::Filter) -> Filter {
    match filter {
        raw::Filter::Off => Filter::Off,
        raw::Filter::Observe => Filter::Observe,
        raw::Filter::Mask => Filter::Mask,
        raw::Filter::Reject => Filter::Reject,
        raw::Filter::Hold => Filter::Hold,
    }
}

impl Config {
    /// Whether some namespace lets messages wait for a moderator.
    pub(super) fn holds_messages(&self) -> bool {
        self.namespaces.iter().any(|(_, policy)| policy.filter == Filter::Hold)
    }
}
