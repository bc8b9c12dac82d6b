//! `fanfare man`: the manual pages, made from the command line that they describe.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::version::VERSION;
use crate::cli::{self, EXAMPLES, ManArgs};

/// Date of the commit this was built from, `YYYY-MM-DD`; empty where that is not known.
const DATE: &str = env!("BUILD_DATE");

/// Prints the program's page, or writes a page for the program and each of its commands into a folder.
///
/// # Errors
/// When a page cannot be written.
pub fn run(args: &ManArgs) -> anyhow::Result<()> {
    let mut pages = pages()?;
    let Some(folder) = &args.dir else {
        return Ok(cli::print(&pages.swap_remove(0).text)?);
    };
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for page in &pages {
        page.write(folder)?;
    }
    Ok(cli::print(&format!("{} pages written into {}\n", pages.len(), folder.display()))?)
}

struct Page {
    /// Such as `fanfare-serve`.
    name: String,
    text: String,
}

impl Page {
    fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let file = folder.join(format!("{}.1", self.name));
        fs::write(&file, &self.text).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// The program's page first.
fn pages() -> anyhow::Result<Vec<Page>> {
    let mut command = cli::command().disable_help_subcommand(true);
    // Names of commands within commands, and the flags that all have.
    command.build();
    let mut pages = Vec::new();
    add(&command, &mut pages)?;
    Ok(pages)
}

fn add(command: &Command, pages: &mut Vec<Page>) -> anyhow::Result<()> {
    pages.push(page(command)?);
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        add(sub, pages)?;
    }
    Ok(())
}

fn page(command: &Command) -> anyhow::Result<Page> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mut man = Man::new(command.clone()).manual("Fanfare").source(format!("Fanfare {VERSION}"));
    if !DATE.is_empty() {
        man = man.date(DATE);
    }
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(&mut text)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let path = name.strip_prefix("fanfare").unwrap_or_default().trim_start_matches('-');
    examples(path).to_writer(&mut text)?;
    sections(path).to_writer(&mut text)?;
    let text = String::from_utf8(text).context("a page is not UTF-8")?;
    // Two breaks around an empty line are one too many for mandoc.
    Ok(Page { name, text: text.replace("\n.br\n\n.br\n", "\n.sp\n") })
}

fn examples(path: &str) -> Roff {
    let mut roff = Roff::new();
    for (place, example) in EXAMPLES.iter().filter(|example| example.command == path).enumerate() {
        if place == 0 {
            roff.control("SH", ["EXAMPLES"]);
        }
        roff.control("TP", []);
        roff.text([roman(example.title())]);
        roff.text([bold(example.line)]);
    }
    roff
}

/// A heading, and what stands under it: each entry in bold, and what it is.
type Section = (&'static str, &'static [(&'static str, &'static str)]);

const SIGNALS: Section = (
    "SIGNALS",
    &[
        (
            "SIGTERM, SIGINT",
            "Leave service: readiness is withdrawn, connections are closed at an even pace. Each further one halves what is left.",
        ),
        ("SIGHUP", "Read the configuration again; one that is wrong changes nothing and is logged."),
    ],
);

const FILES: Section = (
    "FILES",
    &[
        (
            "fanfare.toml",
            "The configuration, in the working directory, when none is named. \"fanfare config default\" prints one with every key.",
        ),
        ("/etc/fanfare/fanfare.toml", "The configuration of the service that the Debian package installs."),
        ("/etc/fanfare/environment", "Its variables: for secrets that are not to stand in the configuration."),
    ],
);

const ENVIRONMENT: Section = (
    "ENVIRONMENT",
    &[
        (
            "FANFARE_*",
            "Every key of the configuration, such as FANFARE_LIMITS__ROOMS_MAX for limits.rooms_max; \"fanfare config env\" prints all. They stand over the file and under flags. One that is no key stops the start.",
        ),
        ("NO_COLOR", "Set to anything: no colour."),
    ],
);

const EXIT_STATUS: Section = (
    "EXIT STATUS",
    &[
        ("0", "It was done."),
        ("1", "It could not be done; standard error says why."),
        ("2", "The command line is wrong."),
    ],
);

/// What is not in the command line: files, signals, the environment, how it ends, where more is said.
fn sections(path: &str) -> Roff {
    let is_a_node = matches!(path, "serve" | "dev");
    let reads_configuration = matches!(path, "" | "serve" | "check" | "token");
    let sections =
        [(is_a_node, SIGNALS), (reads_configuration, FILES), (reads_configuration, ENVIRONMENT), (true, EXIT_STATUS)];
    let mut roff = Roff::new();
    for (_, (title, entries)) in sections.into_iter().filter(|(is_wanted, _)| *is_wanted) {
        roff.control("SH", [title]);
        for (term, text) in entries {
            roff.control("TP", []);
            roff.text([bold(*term)]);
            roff.text([roman(*text)]);
        }
    }
    roff.control("SH", ["SEE ALSO"]);
    let others: Vec<_> = match path {
        "" => Vec::new(),
        _ => vec![bold("fanfare"), roman("(1), ")],
    };
    roff.text([others, vec![roman("/usr/share/doc/fanfare/")]].concat());
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_every_command() {
        let pages = pages().unwrap();
        let names: Vec<_> = pages.iter().map(|page| page.name.as_str()).collect();
        assert_eq!(names[0], "fanfare");
        for sub in cli::command().get_subcommands() {
            assert!(names.contains(&format!("fanfare-{}", sub.get_name()).as_str()), "{}: {names:?}", sub.get_name());
        }
        assert!(names.contains(&"fanfare-config-env") && !names.contains(&"fanfare-help"), "{names:?}");
    }

    #[test]
    fn a_page_has_what_a_reader_looks_for() {
        let pages = pages().unwrap();
        let page = |name: &str| &pages.iter().find(|page| page.name == name).unwrap().text;
        let program = page("fanfare");
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "SUBCOMMANDS", "EXAMPLES", "FILES", "ENVIRONMENT"] {
            assert!(program.contains(&format!(".SH {section}\n")), "{section}: {program}");
        }
        assert!(page("fanfare-serve").contains(".SH SIGNALS\n") && !page("fanfare-why").contains(".SH SIGNALS\n"));
        assert!(page("fanfare-drain").contains("\\-\\-window"));
        // Text never begins a line as an order to the formatter would.
        for line in pages.iter().flat_map(|page| page.text.lines()).filter(|line| line.starts_with('.')) {
            let order = line[1..].split(' ').next().unwrap();
            assert!(["TH", "SH", "TP", "RS", "RE", "br", "sp", "ie", "el", "IP", "PP"].contains(&order), "{line}");
        }
    }
}
