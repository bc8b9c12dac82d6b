//! Word lists and models as operators write them, and messages under them: a list that is refused says where it is wrong, each of its words is found as
//! it is written, stars cover what was found and nothing else, and JSON is ruled on as the text that is in it.
#![no_main]

use fanfare_fuzz::Data;
use fanfare_guard::words::{Label, Training, model_of};
use fanfare_guard::{Filter, Moderation, Ruling};
use fanfare_protocol::{Payload, PayloadRef};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut data = Data(data);
    let kind = data.byte();
    let (file, text) = split(data.0);
    match kind % 4 {
        0 => model(file, text),
        1 => training(file, text),
        _ => list(file, text),
    }
});

/// Before the first zero and after it.
fn split(bytes: &[u8]) -> (&[u8], String) {
    let (file, text) = match bytes.iter().position(|&byte| byte == 0) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &[][..]),
    };
    (file, String::from_utf8_lossy(text).into_owned())
}

fn list(file: &[u8], text: String) {
    let moderation = match Moderation::default().with_words(file) {
        Ok(moderation) => moderation,
        Err(error) => {
            let lines = file.split(|&byte| byte == b'\n').count();
            assert!((1..=10).contains(&error.problems.len()) && !error.to_string().is_empty());
            assert!(error.problems.iter().all(|&(line, _)| line <= lines), "{error}");
            return;
        }
    };
    rule(&moderation, &text);
    for line in String::from_utf8_lossy(file).trim_start_matches('\u{feff}').lines().take(4) {
        let line = line.trim();
        let word = line.strip_prefix('*').unwrap_or(line);
        let word = word.strip_suffix('*').unwrap_or(word);
        // More than eight blanks in a row end a word of an unspaced script, and what follows stands by itself.
        let mut blanks = 0;
        let is_gappy = word.chars().any(|c| {
            let is_mark = c.is_ascii_punctuation() && !",!?;:'".contains(c);
            blanks = if c.is_alphanumeric() { 0 } else { blanks + u32::from(!is_mark) };
            blanks > 8
        });
        if !line.is_empty() && !line.starts_with('#') && !is_gappy {
            assert!(
                moderation.judge(PayloadRef::Text(word), Filter::Reject) != Ruling::Pass,
                "{word:?} is not found as the list has it"
            );
        }
    }
}

/// All filters agree about whether there is a fault, and so do JSON and plain text.
fn rule(moderation: &Moderation, text: &str) {
    let json = serde_json::to_string(text).expect("a string");
    let masked = moderation.judge(PayloadRef::Text(text), Filter::Mask);
    let masked_json = moderation.judge(PayloadRef::Json(&json), Filter::Mask);
    let is_clean = masked == Ruling::Pass;
    assert_eq!(masked_json == Ruling::Pass, is_clean, "in JSON {json} it is otherwise");
    // One of them at a time: there are many texts.
    let filter = [Filter::Observe, Filter::Reject, Filter::Hold][text.len() % 3];
    assert_eq!(moderation.judge(PayloadRef::Text(text), filter) == Ruling::Pass, is_clean, "{filter:?} {text:?}");
    assert_eq!(moderation.judge(PayloadRef::Text(text), Filter::Off), Ruling::Pass);
    let (Ruling::Mask(finding, Payload::Text(plain)), Ruling::Mask(in_json, Payload::Json(json))) =
        (masked, masked_json)
    else {
        return;
    };
    assert_eq!(finding, in_json);
    let plain = str::from_utf8(&plain).expect("text stays text");
    let from_json: String = serde_json::from_slice(&json).expect("JSON stays JSON");
    assert_eq!(plain, from_json, "stars in JSON stand where they do in text");
    assert_eq!(plain.chars().count(), text.chars().count(), "a star for each character");
    assert!(
        plain.chars().zip(text.chars()).all(|(new, old)| new == old || new == '*'),
        "only stars are new: {plain:?}"
    );
    // A word of a star alone is covered by itself.
    assert!(plain != text || text.contains('*'), "nothing is covered: {plain:?}");
}

fn model(file: &[u8], text: String) {
    let Ok(moderation) = Moderation::default().with_model(file) else { return };
    let score = moderation.model().expect("just read").score_text(&text);
    assert!(score.log_odds.is_finite() && (0.0..=1.0).contains(&score.probability()), "{score:?}");
    let json = serde_json::to_string(&text).expect("a string");
    let plain = moderation.judge(PayloadRef::Text(&text), Filter::Reject);
    assert_eq!(plain, moderation.judge(PayloadRef::Json(&json), Filter::Reject));
    assert_eq!(plain != Ruling::Pass, score.is_spam);
}

/// What is learned can be read, and knows what it has learned.
fn training(spam: &[u8], ham: String) {
    let spam = String::from_utf8_lossy(spam);
    let mut training = Training::default();
    training.learn(&spam, Label::Spam);
    training.learn(&ham, Label::Ham);
    let features = training.features();
    let file = training.to_file(0.5);
    let model = model_of(&file).expect("its own file");
    assert!(model.len() <= features);
    let (spam, ham) = (model.score_text(&spam), model.score_text(&ham));
    assert!(spam.log_odds >= ham.log_odds, "{spam:?} {ham:?}");
}
