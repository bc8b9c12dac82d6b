//! Lays a file, the environment and the flags over the defaults, and says what in them is no configuration.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use fanfare_protocol::RoomName;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::raw::{NAMESPACES, Namespace, Raw, Section, key_path, namespace_path};
use super::value::{Literal, Origin, nearest, slips};
use super::{ConfigError, Flags, Problem};

/// Prefix of every environment variable that is meant for this program.
pub(crate) const PREFIX: &str = "FANFARE_";

/// The environment variables that are meant for this program, by full name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variables of this process that begin with `FANFARE_`.
    ///
    /// # Errors
    /// When one of them is not UTF-8.
    pub fn of_process() -> Result<Self, ConfigError> {
        let mut found = BTreeMap::new();
        let mut problems = Vec::new();
        for (name, value) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if !name.starts_with(PREFIX) {
                continue;
            }
            match value.into_string() {
                Ok(value) => _ = found.insert(name, value),
                Err(_) => problems
                    .push(Problem::new(Origin::Environment(name.into()), "the value is not valid UTF-8".to_owned())),
            }
        }
        if problems.is_empty() { Ok(Self(found)) } else { Err(ConfigError::new(problems)) }
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// A configuration file's text and the name it goes by in errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    name: Arc<str>,
    text: String,
}

impl ConfigFile {
    /// The file that is read when none is named.
    pub const DEFAULT: &str = "fanfare.toml";

    /// A file that is already in memory.
    #[must_use]
    pub fn new(name: &str, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// Reads `path`.
    ///
    /// # Errors
    /// When it cannot be read or is not UTF-8.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let name: Arc<str> = path.display().to_string().into();
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self { name, text }),
            Err(error) => Err(ConfigError::new(vec![Problem::unplaced(format!(
                "cannot read {name}: {error}; `fanfare config default` prints a file to start from"
            ))])),
        }
    }

    /// Reads `named`, or else [`ConfigFile::DEFAULT`] of the working directory where there is one.
    ///
    /// # Errors
    /// When a file that is named or there cannot be read or is not UTF-8.
    pub fn find(named: Option<&Path>) -> Result<Option<Self>, ConfigError> {
        match named {
            Some(path) => Self::read(path).map(Some),
            // A file that is there and cannot be looked at is an error, not a reason to start without it.
            None if std::fs::symlink_metadata(Self::DEFAULT).is_ok() => Self::read(Path::new(Self::DEFAULT)).map(Some),
            None => Ok(None),
        }
    }

    /// Name the file goes by in errors.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn origin(&self, offset: usize) -> Origin {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Origin::File {
            file: Arc::clone(&self.name),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// Lays `file` over `raw`.
pub(crate) fn apply_file(raw: &mut Raw, file: &ConfigFile, problems: &mut Vec<Problem>) {
    let (document, errors) = DeTable::parse_recoverable(&file.text);
    if !errors.is_empty() {
        // A document that had to be guessed at is not looked into: the follow-up complaints would mislead. The
        // parser's own display is avoided because it quotes the line, which may hold a secret.
        for error in errors {
            let offset = error.span().map_or(0, |span| span.start);
            problems.push(Problem::new(file.origin(offset), error.message().to_owned()));
        }
        return;
    }
    apply_document(raw, document.get_ref(), &|offset| file.origin(offset), problems);
}

/// Lays the defaults of `fanfare dev` over `raw`.
pub(crate) fn apply_dev(raw: &mut Raw, text: &str) {
    let document = DeTable::parse(text).expect("the built-in text is valid TOML");
    let mut problems = Vec::new();
    apply_document(raw, document.get_ref(), &|_| Origin::Dev, &mut problems);
    assert!(problems.is_empty(), "the built-in text has known keys only: {problems:?}");
}

fn apply_document(raw: &mut Raw, document: &DeTable<'_>, at: &dyn Fn(usize) -> Origin, problems: &mut Vec<Problem>) {
    for (key, value) in document {
        let name = key.get_ref().as_ref();
        if name == NAMESPACES {
            apply_namespaces(raw, value, at, problems);
        } else if let Some(section) = raw.section_mut(name).filter(|_| !name.is_empty()) {
            apply_table(section, name, value, at, problems);
        } else {
            let origin = at(key.span().start);
            apply_key(&mut raw.node, "", name, Literal::Toml(value.get_ref()), origin, problems);
        }
    }
}

fn apply_namespaces(
    raw: &mut Raw,
    value: &Spanned<DeValue<'_>>,
    at: &dyn Fn(usize) -> Origin,
    problems: &mut Vec<Problem>,
) {
    let DeValue::Table(namespaces) = value.get_ref() else {
        let text = format!("`{NAMESPACES}` holds a table for each namespace, such as [namespaces.default]");
        return problems.push(Problem::new(at(value.span().start), text));
    };
    for (key, value) in namespaces {
        let name = key.get_ref().as_ref();
        let origin = at(key.span().start);
        if !value.get_ref().is_table() {
            let hint = match Namespace::default().names().contains(&name) {
                true => format!("write it under [{}]", namespace_path("default")),
                false => format!("write [{}]", namespace_path(name)),
            };
            problems.push(Problem::new(origin, format!("`{NAMESPACES}.{name}` is not in a namespace's table; {hint}")));
        } else if let Err(reason) = check_namespace(name) {
            problems.push(Problem::new(origin, reason));
        } else {
            let namespace = raw.namespaces.entry(name.to_owned()).or_default();
            apply_table(namespace, &namespace_path(name), value, at, problems);
        }
    }
}

/// A namespace is the part of a room's name before its first colon, so it can have no colon itself.
fn check_namespace(name: &str) -> Result<(), String> {
    if name.contains(':') {
        return Err(format!("the namespace {name:?} can never match: it ends before a room name's first `:`"));
    }
    match RoomName::parse(name) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{name:?} cannot be a namespace: {error}")),
    }
}

fn apply_table(
    section: &mut dyn Section,
    name: &str,
    value: &Spanned<DeValue<'_>>,
    at: &dyn Fn(usize) -> Origin,
    problems: &mut Vec<Problem>,
) {
    let DeValue::Table(table) = value.get_ref() else {
        let text = format!("`{name}` is a table of keys; write [{name}]");
        return problems.push(Problem::new(at(value.span().start), text));
    };
    for (key, value) in table {
        let origin = at(key.span().start);
        apply_key(section, name, key.get_ref(), Literal::Toml(value.get_ref()), origin, problems);
    }
}

fn apply_key(
    section: &mut dyn Section,
    section_name: &str,
    key: &str,
    literal: Literal<'_>,
    origin: Origin,
    problems: &mut Vec<Problem>,
) {
    let path = key_path(section_name, key);
    match section.set(key, literal, origin.clone()) {
        Some(Ok(())) => {}
        Some(Err(expected)) => problems.push(Problem::new(origin, format!("`{path}` must be {expected}"))),
        None => {
            let thing = if matches!(literal, Literal::Toml(DeValue::Table(_))) { "table" } else { "key" };
            let hint = suggestion(section.names(), section_name, key);
            problems.push(Problem::new(origin, format!("unknown {thing} `{path}`{hint}")));
        }
    }
}

/// "; did you mean …?" for an unknown key, or nothing. Looks in the same table first, then for the same key in
/// another one, then for a table's name.
fn suggestion(siblings: &[&'static str], section: &str, key: &str) -> String {
    let preset = Raw::preset();
    let elsewhere = || {
        preset.sections().into_iter().find_map(|(name, other)| {
            let known = other.names().contains(&key);
            (known && name != section).then(|| key_path(&name, key))
        })
    };
    let table = || {
        let names = preset.sections();
        let names = names.iter().map(|(name, _)| name.as_str()).chain([NAMESPACES]).filter(|name| !name.is_empty());
        nearest(key, names).filter(|_| section.is_empty()).map(|name| format!("[{name}]"))
    };
    let sibling = nearest(key, siblings.iter().copied()).map(str::to_owned);
    match sibling.or_else(elsewhere).or_else(table) {
        Some(hint) => format!("; did you mean `{hint}`?"),
        None => String::new(),
    }
}

/// Lays the environment over `raw`.
pub(crate) fn apply_environment(raw: &mut Raw, environment: &Environment, problems: &mut Vec<Problem>) {
    for (name, value) in &environment.0 {
        let origin = Origin::Environment(name.as_str().into());
        let literal = Literal::Bare(value);
        let found = name.strip_prefix(PREFIX).and_then(|rest| set_variable(raw, rest, literal, origin.clone()));
        match found {
            Some((_, Ok(()))) => {}
            Some((path, Err(expected))) => problems.push(Problem::new(origin, format!("`{path}` must be {expected}"))),
            None => {
                let hint = match nearest_variable(name) {
                    Some(hint) => format!("; did you mean {hint}?"),
                    None => format!("; every variable that begins with {PREFIX} has to be a key"),
                };
                problems.push(Problem::new(origin, format!("unknown key{hint}")));
            }
        }
    }
}

/// Reads the variable `FANFARE_<rest>`: the key's full name and how it went, or `None` when there is no such key.
fn set_variable(
    raw: &mut Raw,
    rest: &str,
    literal: Literal<'_>,
    origin: Origin,
) -> Option<(String, Result<(), String>)> {
    if rest.contains(|c: char| c.is_ascii_lowercase()) {
        return None;
    }
    let rest = rest.to_ascii_lowercase();
    let Some((table, key)) = rest.split_once("__") else {
        return raw.node.set(&rest, literal, origin).map(|result| (rest, result));
    };
    if table != NAMESPACES {
        let result = raw.section_mut(table).filter(|_| !table.is_empty())?.set(key, literal, origin)?;
        return Some((key_path(table, key), result));
    }
    let (name, key) = key.rsplit_once("__")?;
    check_namespace(name).ok()?;
    // Environment names have neither dashes nor lower case: a namespace that the file spells so is meant as well.
    let plain = |name: &str| name.to_lowercase().replace(|c: char| !c.is_alphanumeric(), "_");
    let name = raw.namespaces.keys().find(|known| plain(known) == name).cloned().unwrap_or_else(|| name.to_owned());
    let mut namespace = raw.namespaces.get(&name).cloned().unwrap_or_default();
    let result = namespace.set(key, literal, origin)?;
    let path = key_path(&namespace_path(&name), key);
    raw.namespaces.insert(name, namespace);
    Some((path, result))
}

/// The environment name of a key.
pub(crate) fn variable(section: &str, key: &str) -> String {
    format!("{PREFIX}{}", key_path(section, key).replace('.', "__").to_ascii_uppercase())
}

fn nearest_variable(name: &str) -> Option<String> {
    let upper = name.to_ascii_uppercase();
    let mut namespaced = Vec::new();
    // Under a namespace of its own name only the key can be a slip.
    if let Some((namespace, _)) = upper.strip_prefix("FANFARE_NAMESPACES__").and_then(|key| key.rsplit_once("__")) {
        let section = format!("{NAMESPACES}.{namespace}");
        namespaced.extend(Namespace::default().names().iter().map(|key| variable(&section, key)));
    }
    let found = upper.strip_prefix(PREFIX).unwrap_or(&upper);
    // Long names are near each other by their first words alone, so the allowance stops growing with the length.
    let allowance = (found.len() / 3).clamp(2, 4);
    VARIABLES
        .iter()
        .chain(&namespaced)
        .filter_map(|known| Some((slips(found, &known[PREFIX.len()..], allowance)?, known)))
        .min()
        .map(|(_, known)| known.clone())
}

/// Every variable but those of namespaces that a configuration adds.
static VARIABLES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let sections = Raw::preset().sections().into_iter();
    sections.flat_map(|(section, keys)| keys.names().iter().map(move |key| variable(&section, key))).collect()
});

/// Lays the flags over `raw`.
pub(crate) fn apply_flags(raw: &mut Raw, flags: &Flags) {
    let mut set = |key: &str, flag: &'static str, value: Option<String>| {
        let Some(value) = value else { return };
        let result = raw.node.set(key, Literal::Bare(&value), Origin::Flag(flag));
        assert_eq!(result, Some(Ok(())), "a flag's value was parsed before");
    };
    set("listen", "--listen", flags.listen.as_ref().map(ToString::to_string));
    set("admin", "--admin", flags.admin.as_ref().map(ToString::to_string));
    set("shards", "--shards", flags.shards.map(|shards| shards.to_string()));
    set("log", "--log", flags.log.map(|log| log.as_str().to_owned()));
}
