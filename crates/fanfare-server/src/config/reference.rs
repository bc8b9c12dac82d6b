//! What `fanfare config` prints: the default file, the environment names and the reference page, all generated from
//! the declarations in `raw.rs`.

use std::fmt::Write as _;

use super::layer::variable;
use super::raw::{Key, NAMESPACES, Raw};
use super::typed::is_unavailable;

/// Stands at keys that only take their default.
const UNAVAILABLE: &str = "Not available in this version: only the default is taken.";

/// A complete configuration file with every key at its default, each with its documentation as a comment.
#[must_use]
pub fn default_file() -> String {
    let mut out = String::from(
        "# Fanfare's configuration. Every key is here with its default; leave out what you do not change.\n\
         # A key can also be given as an environment variable (`fanfare config env`), which wins over this file,\n\
         # and a flag wins over both. `fanfare check` validates the file.\n",
    );
    for (name, section) in Raw::default().sections() {
        out.push('\n');
        comment(&mut out, section.about());
        if name.is_empty() {
            out.push('\n');
        } else {
            line(&mut out, format_args!("[{name}]"));
        }
        for key in section.keys() {
            comment(&mut out, key.doc);
            if is_unavailable(&name, key.name) {
                comment(&mut out, UNAVAILABLE);
            }
            line(&mut out, format_args!("{} = {}", key.name, key.value));
        }
    }
    out
}

/// Every environment variable with its type and default, a line each, in columns.
#[must_use]
pub fn environment() -> String {
    let mut out = String::from(
        "# Nesting is written with two underscores; DEFAULT stands for any namespace's name.\n\
         # Lists are TOML arrays or separated by commas.\n",
    );
    let rows: Vec<(String, Key)> = keys();
    let names = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let kinds = rows.iter().map(|(_, key)| key.kind.len()).max().unwrap_or(0);
    for (name, key) in rows {
        line(&mut out, format_args!("{name:<names$}  {:<kinds$}  {}", key.kind, key.value));
    }
    out
}

/// The reference page, Markdown.
#[must_use]
pub fn page() -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         <!-- Written by `fanfare config docs`; change the declarations in crates/fanfare-server/src/config/raw.rs. -->\n\n\
         Configuration comes from a TOML file, from the environment and from flags. A flag wins over the environment, the\n\
         environment over the file, the file over the defaults. The environment name of a key is `FANFARE_` and its full\n\
         name in capitals, with two underscores for each dot: `limits.message_bytes_max` is\n\
         `FANFARE_LIMITS__MESSAGE_BYTES_MAX`, and `history_size` of the namespace `chat` is\n\
         `FANFARE_NAMESPACES__CHAT__HISTORY_SIZE`. Lists in the environment are TOML arrays or separated by commas.\n\n\
         A key that does not exist stops the start, in the file and in the environment. So does a value that does not fit,\n\
         and a value that asks for a feature this version does not have. `fanfare check FILE` says so beforehand, with file\n\
         and line, and prints the memory that the limits add up to.\n",
    );
    for (name, section) in Raw::default().sections() {
        let title = match name.as_str() {
            "" => "At the top of the file".to_owned(),
            _ if name.starts_with(NAMESPACES) => format!("[{NAMESPACES}.NAME]"),
            _ => format!("[{name}]"),
        };
        line(&mut out, format_args!("\n## {title}\n\n{}\n", paragraph(section.about())));
        out.push_str("| key | type | default | meaning |\n| --- | --- | --- | --- |\n");
        for key in section.keys() {
            let note = if is_unavailable(&name, key.name) { format!(" {UNAVAILABLE}") } else { String::new() };
            let cells = [
                format!("`{}`", key.name),
                key.kind.to_owned(),
                format!("`{}`", key.value),
                paragraph(key.doc) + &note,
            ];
            let cells = cells.map(|cell| cell.replace('|', "\\|"));
            line(&mut out, format_args!("| {} |", cells.join(" | ")));
        }
    }
    out
}

/// Every key with its environment name.
fn keys() -> Vec<(String, Key)> {
    let mut rows = Vec::new();
    for (name, section) in Raw::default().sections() {
        rows.extend(section.keys().into_iter().map(|key| (variable(&name, key.name), key)));
    }
    rows
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("writing to a String cannot fail");
}

fn comment(out: &mut String, doc: &str) {
    for text in doc.lines() {
        line(out, format_args!("# {}", text.trim()));
    }
}

fn paragraph(doc: &str) -> String {
    doc.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}
