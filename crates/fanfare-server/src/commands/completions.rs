//! `fanfare completions`: what a shell has to know to complete this program's command line.

use clap_complete::Shell;

use crate::cli;

/// Prints the script for `shell`.
///
/// # Errors
/// An output error.
pub fn run(shell: Shell) -> anyhow::Result<()> {
    Ok(cli::print(&script(shell))?)
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "fanfare", &mut script);
    String::from_utf8(script).expect("names and texts of the command line are UTF-8")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn every_shells_script_knows_the_commands() {
        for shell in [Shell::Bash, Shell::Elvish, Shell::Fish, Shell::PowerShell, Shell::Zsh] {
            let script = script(shell);
            for word in ["drain", "no-color"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }

    /// What bash offers for a line that ends in `last`.
    fn offered(before: &str, last: &str) -> Vec<String> {
        let at = before.split(' ').count();
        let asked = format!(
            "{}\nCOMP_WORDS=({before} '{last}') COMP_CWORD={at}\n_fanfare fanfare '{last}' \"${{COMP_WORDS[$((COMP_CWORD-1))]}}\"\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script(Shell::Bash)
        );
        let output = Command::new("bash").args(["--norc", "-c", &asked]).output().expect("bash");
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
    }

    #[test]
    fn bash_completes_commands_flags_and_words() {
        assert_eq!(offered("fanfare", "dra"), ["drain"]);
        assert_eq!(offered("fanfare drain", "--w"), ["--window"]);
        assert_eq!(offered("fanfare serve --log", "j"), ["json"]);
        assert_eq!(offered("fanfare completions", "fi"), ["fish"]);
    }
}
