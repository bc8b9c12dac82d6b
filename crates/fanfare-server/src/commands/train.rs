//! `fanfare train`: from messages that people have judged to a model for moderation, and how far it can be trusted.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use fanfare_guard::Moderation;
use fanfare_guard::words::{Counts, Exam, Label, Training, is_held_out, model_of};

use crate::cli::{self, TrainArgs};

/// Bytes of one line of a file.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Messages between two lines that tell how far it is.
const PROGRESS_EVERY: u64 = 100_000;

/// Reads the messages, trains on most of them, judges the others with what was learnt, and writes the model that did so.
///
/// The files are read twice, so that no message has to be kept.
///
/// # Errors
/// When a file cannot be read, a line is not of the form, there is nothing to learn from, or the model cannot be written.
pub fn run(args: &TrainArgs) -> anyhow::Result<()> {
    ensure!(
        !args.labelled.is_empty() || !args.spam.is_empty() || !args.ham.is_empty(),
        "there is nothing to learn from: name a file of lines `spam<TAB>text` and `ham<TAB>text`, or one each with --spam and --ham"
    );
    let mut training = Training::default();
    each_message(args, &mut |text, label, count| {
        if !is_held_out(text, args.held_out, args.seed) {
            training.learn(text, label);
        }
        if count % PROGRESS_EVERY == 0 {
            tell(&format!("{count} messages read, {} features", training.features()));
        }
    })?;
    let learnt = training.messages();
    for (count, kind) in [(learnt.spam, "spam"), (learnt.ham, "ham")] {
        ensure!(count > 0, "no message of {kind} was learnt from: both kinds are needed to tell them apart");
    }
    let file = training.to_file(args.threshold);
    let model = model_of(&file).context("the model cannot be read back")?;
    let mut exam = Exam::default();
    each_message(args, &mut |text, label, count| {
        if is_held_out(text, args.held_out, args.seed) {
            exam.ask(&model, text, label);
        }
        if count % PROGRESS_EVERY == 0 {
            tell(&format!("{count} messages read again, {} judged", exam.messages()));
        }
    })?;
    write(&args.output, &file).with_context(|| format!("cannot write {}", args.output.display()))?;
    let known = Moderation::default().with_model(file.as_bytes())?;
    let written = format!("{}: {} features, version {}\n", args.output.display(), model.len(), known.model_version());
    Ok(cli::print(&(report(args, learnt, &exam) + &written))?)
}

/// Says on stderr how far it is; nobody has to listen.
fn tell(text: &str) {
    let _ = writeln!(io::stderr().lock(), "fanfare: {text}");
}

fn report(args: &TrainArgs, learnt: Counts, exam: &Exam) -> String {
    let percent =
        |share: Option<f64>| share.map_or_else(|| "none".to_owned(), |share| format!("{:.1} %", share * 100.0));
    let mut out = format!("learnt from {} messages of spam and {} of ham\n", learnt.spam, learnt.ham);
    if exam.messages() == 0 {
        out.push_str("no message was held out, so nothing is known of how well it does on others\n");
        return out;
    }
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "held out {} messages: accuracy {}, precision {}, recall {} at threshold {}",
        exam.messages(),
        percent(exam.accuracy()),
        percent(exam.precision()),
        percent(exam.recall()),
        args.threshold
    );
    let _ = writeln!(
        out,
        "  of spam {} found, {} missed; of ham {} taken for spam, {} left alone",
        exam.spam_found, exam.spam_missed, exam.ham_blamed, exam.ham_passed
    );
    out
}

/// Calls `each` with every message of all files, its label and how many there have been.
fn each_message(args: &TrainArgs, each: &mut dyn FnMut(&str, Label, u64)) -> anyhow::Result<()> {
    let mut count = 0;
    let mut each = |text: &str, label| {
        if !text.is_empty() {
            count += 1;
            each(text, label, count);
        }
    };
    for file in &args.labelled {
        each_line(file, &mut |line| {
            if line.is_empty() {
                return Ok(());
            }
            match line.split_once('\t') {
                Some(("spam", text)) => each(text.trim(), Label::Spam),
                Some(("ham", text)) => each(text.trim(), Label::Ham),
                _ => bail!("a line must begin with `spam` or `ham` and a tab"),
            }
            Ok(())
        })?;
    }
    for (files, label) in [(&args.spam, Label::Spam), (&args.ham, Label::Ham)] {
        for file in files {
            each_line(file, &mut |line| {
                each(line.trim(), label);
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// Calls `each` with every line of a file, without its end; errors are told with file and line.
fn each_line(path: &Path, each: &mut dyn FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut reader = BufReader::new(File::open(path).with_context(|| format!("cannot read {}", path.display()))?);
    let mut bytes = Vec::new();
    for number in 1_u64.. {
        let place = || format!("{}:{number}", path.display());
        bytes.clear();
        if reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes).with_context(place)? == 0 {
            break;
        }
        ensure!(bytes.len() < LINE_BYTES_MAX as usize, "{}: the line is over {LINE_BYTES_MAX} bytes", place());
        let line = str::from_utf8(&bytes).context("it is not UTF-8").with_context(place)?;
        let line = line.strip_prefix('\u{feff}').filter(|_| number == 1).unwrap_or(line);
        each(line.trim_end_matches(['\n', '\r'])).with_context(place)?;
    }
    Ok(())
}

/// Beside its place first: a node that reads its files anew meanwhile finds the old model or the new one, whole.
fn write(path: &Path, file: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    fs::write(&beside, file)?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    struct Desk(tempfile::TempDir);

    impl Desk {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
            fs::write(self.path(name), text).unwrap();
            self.path(name)
        }

        fn args(&self, labelled: &[PathBuf]) -> TrainArgs {
            TrainArgs {
                labelled: labelled.to_vec(),
                spam: Vec::new(),
                ham: Vec::new(),
                output: self.path("model"),
                threshold: 0.9,
                held_out: 0.2,
                seed: 0,
            }
        }

        fn complaint(&self, text: impl AsRef<[u8]>) -> String {
            let file = self.file("messages", text);
            let error = run(&self.args(&[file])).unwrap_err();
            assert!(!self.path("model").exists(), "nothing is written");
            format!("{error:#}").replace(&format!("{}/", self.0.path().display()), "")
        }
    }

    fn messages() -> String {
        let line = |n: usize| match n % 2 {
            0 => format!("spam\tfree money number {n}, click 免费领取"),
            _ => format!("ham\tsee you at lunch number {n}, 一起吃饭"),
        };
        (0..200).map(|n| line(n) + "\n").collect()
    }

    #[test]
    fn a_labelled_file_and_two_of_one_kind_make_the_same_model() {
        let desk = Desk::new();
        let text = messages();
        run(&desk.args(&[desk.file("all", &text)])).unwrap();
        let from_one = fs::read_to_string(desk.path("model")).unwrap();
        assert!(!desk.path("model.new").exists());
        let of = |label: &str| -> String {
            let lines = text.lines().filter_map(|line| line.strip_prefix(label)?.strip_prefix('\t'));
            lines.map(|line| format!("  {line}\r\n\n")).collect()
        };
        let mut args = desk.args(&[]);
        (args.spam, args.ham) = (vec![desk.file("spam", of("spam"))], vec![desk.file("ham", of("ham"))]);
        run(&args).unwrap();
        assert_eq!(fs::read_to_string(desk.path("model")).unwrap(), from_one);
        let model = model_of(&from_one).unwrap();
        assert!(model.score_text("免费 click").is_spam && !model.score_text("lunch").is_spam);
    }

    #[test]
    fn the_report_is_about_the_messages_held_out() {
        let desk = Desk::new();
        let args = desk.args(&[]);
        let exam = Exam { spam_found: 8, spam_missed: 2, ham_blamed: 1, ham_passed: 89 };
        assert_eq!(
            report(&args, Counts { spam: 40, ham: 360 }, &exam),
            "learnt from 40 messages of spam and 360 of ham\n\
             held out 100 messages: accuracy 97.0 %, precision 88.9 %, recall 80.0 % at threshold 0.9\n\
             \x20 of spam 8 found, 2 missed; of ham 1 taken for spam, 89 left alone\n"
        );
        assert!(report(&args, Counts::default(), &Exam::default()).contains("no message was held out"));
    }

    #[test]
    fn what_is_wrong_is_told_with_file_and_line() {
        let desk = Desk::new();
        let form = "a line must begin with `spam` or `ham` and a tab";
        assert_eq!(desk.complaint("ham\thello\nspma\tfree\n"), format!("messages:2: {form}"));
        assert_eq!(desk.complaint("ham hello\n"), format!("messages:1: {form}"));
        assert!(desk.complaint(b"ham\t\xff\n").starts_with("messages:1: it is not UTF-8"));
        let long = format!("ham\t{}\n", "x".repeat(LINE_BYTES_MAX as usize));
        assert_eq!(desk.complaint(long), "messages:1: the line is over 1048576 bytes");
        assert!(desk.complaint("ham\thello\nham\tthere\n\n").starts_with("no message of spam"));
        assert!(run(&desk.args(&[desk.path("none")])).unwrap_err().to_string().starts_with("cannot read"));
        assert!(run(&desk.args(&[])).unwrap_err().to_string().starts_with("there is nothing to learn from"));
    }
}
