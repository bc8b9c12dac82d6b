//! Lines to begin with, for the help of each command and its manual page. A test parses every one of them.

use clap::{Command, CommandFactory as _};

use super::Cli;

/// One line to try, and what it is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Example {
    /// The subcommand; empty: the program itself.
    pub(crate) command: &'static str,
    /// What it is for, half a sentence.
    pub(crate) about: &'static str,
    /// What is typed.
    pub(crate) line: &'static str,
}

impl Example {
    /// What it is for, with what is to stand between it and the line.
    pub(crate) fn title(&self) -> String {
        let colon = if self.about.ends_with('?') { "" } else { ":" };
        format!("{}{colon}", self.about)
    }
}

macro_rules! examples {
    ($( $command:literal { $( $about:literal: $line:literal, )+ } )+) => {
        &[ $( $( Example { command: $command, about: $about, line: $line }, )+ )+ ]
    };
}

/// All of them, in the order of the commands.
pub(crate) const EXAMPLES: &[Example] = examples! {
    "" {
        "Try it out: a gateway for this machine, with a page": "fanfare dev",
        "Run it for others: look at the configuration first": "fanfare check fanfare.toml",
        "Then start": "fanfare serve --config fanfare.toml",
    }
    "dev" {
        "A gateway for this machine, with a page and a token": "fanfare dev",
        "Another port, when 8080 or 8081 is taken": "fanfare dev --listen 127.0.0.1:9080 --admin 127.0.0.1:9081",
    }
    "serve" {
        "With a configuration file": "fanfare serve --config /etc/fanfare/fanfare.toml",
        "Behind a proxy on the same machine": "fanfare serve --listen unix:/run/fanfare/fanfare.sock",
    }
    "sub" {
        "Print what is said in a room": "fanfare sub lobby",
        "Of another gateway, signed in": "fanfare sub chat:general --url wss://gateway.example --token TOKEN",
        "Over TLS, with a certificate of an authority of one's own": "fanfare sub lobby --url wss://10.0.0.11:8443 --ca authority.pem",
        "Go on from a position, as `subscribed` and receipts tell it": "fanfare sub lobby --since 3b3e8d8c1ff440b8:17",
    }
    "pub" {
        "Say something": "fanfare pub lobby hello",
        "Publish JSON, with the key of a production gateway": "fanfare pub lobby '{\"text\":\"hello\"}' --key KEY",
        "Publish each line of a file": "fanfare pub lobby - < lines.txt",
    }
    "why" {
        "Why was this user disconnected?": "fanfare why --user alice",
        "Who was too slow?": "fanfare why --reason slow_consumer --limit 100",
    }
    "top" {
        "Watch a gateway": "fanfare top",
        "One frame as text, for a script": "fanfare top --once --url http://10.0.0.11:8081 --key KEY",
    }
    "drain" {
        "Take the gateway of this machine out of service within a minute": "fanfare drain --window 60s --key KEY",
    }
    "check" {
        "Is this file right, and how much memory does it allow?": "fanfare check fanfare.toml",
    }
    "config" {
        "A file to start from": "fanfare config default > fanfare.toml",
        "The environment variables": "fanfare config env",
    }
    "token" {
        "A token for an hour, to listen to one room": "fanfare token --user alice --room chat:general",
        "To publish too, in all rooms of a namespace": "fanfare token --user alice --room 'chat:*' --publish --ttl 15m",
        "Why is this token refused?": "fanfare token --check TOKEN --config /etc/fanfare/fanfare.toml",
    }
    "train" {
        "Learn from judged messages": "fanfare train judged.tsv --output model.txt",
    }
    "completions" {
        "For this shell only": "source <(fanfare completions bash)",
        "For good, where no package has done it": "fanfare completions zsh > ~/.zfunc/_fanfare",
    }
    "man" {
        "Read the manual where no package has installed it": "fanfare man | man -l -",
        "Write all pages": "fanfare man --dir ~/.local/share/man/man1",
    }
};

/// The command line with its examples.
pub(crate) fn command() -> Command {
    let mut command = Cli::command().after_help(help(""));
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names {
        let help = help(&name);
        if !help.is_empty() {
            command = command.mut_subcommand(&name, |sub| sub.after_help(help));
        }
    }
    command
}

fn help(command: &str) -> String {
    let mut examples = EXAMPLES.iter().filter(|example| example.command == command).peekable();
    if examples.peek().is_none() {
        return String::new();
    }
    let lines: Vec<_> = examples.map(|example| format!("  {}\n    {}", example.title(), example.line)).collect();
    format!("Examples:\n{}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    /// The words of a line as a shell gives them to the program: quotes taken away, redirections and pipes left out.
    fn words(line: &str) -> Vec<String> {
        let line = line.strip_prefix("source <(").map_or(line, |rest| rest.trim_end_matches(')'));
        let line = line.split([' ', '|', '<', '>']).collect::<Vec<_>>();
        let typed = line.iter().take_while(|word| !word.is_empty() || line.len() == 1);
        typed.map(|word| word.trim_matches('\'').to_owned()).collect()
    }

    #[test]
    fn every_example_is_a_line_that_works() {
        for Example { command, line, .. } in EXAMPLES {
            let words = words(line);
            assert!(words.len() > 1, "{line}: {words:?}");
            Cli::try_parse_from(&words).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(command.is_empty() || words[1] == *command, "{line} stands with {command}");
        }
    }

    #[test]
    fn every_command_has_examples_in_its_help() {
        let command = command();
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "version") {
            let help = sub.clone().render_long_help().to_string();
            assert!(help.contains("Examples:\n") && help.contains("fanfare "), "{}: {help}", sub.get_name());
        }
        let known: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
        for Example { command, .. } in EXAMPLES {
            assert!(command.is_empty() || known.contains(command), "{command} is no command");
        }
    }
}
