//! One configuration value: how it is read from a file or the environment, how it is shown, and where it came from.

use std::fmt;
use std::sync::Arc;

use toml::de::DeValue;

/// Where a setting's value was given. Ordered by precedence, lowest first; files by line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody gave it: the built-in default.
    Preset,
    /// Nobody gave it, and the program runs as `fanfare dev`.
    Dev,
    /// A configuration file. Lines and columns count from 1, columns in characters.
    File {
        /// Name of the file as it was given.
        file: Arc<str>,
        /// Line of the key.
        line: usize,
        /// Column of the key.
        column: usize,
    },
    /// An environment variable, by its full name.
    Environment(Arc<str>),
    /// A command-line flag, with its dashes.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preset => f.write_str("default"),
            Self::Dev => f.write_str("fanfare dev"),
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// A list of tables, each read by `read`; what is wrong with one names its place. `list` says what is wanted, with an example.
pub(crate) fn read_tables<T>(
    literal: Literal<'_>,
    list: &str,
    read: impl Fn(&DeValue<'_>) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let all = |items: &[toml::Spanned<DeValue<'_>>]| {
        let entry = |(index, item): (usize, &toml::Spanned<DeValue<'_>>)| {
            read(item.get_ref()).map_err(|why| format!("{why} (entry {})", index + 1))
        };
        items.iter().enumerate().map(entry).collect()
    };
    match literal {
        Literal::Toml(DeValue::Array(items)) => all(items),
        Literal::Toml(_) => Err(list.to_owned()),
        Literal::Bare(text) => match DeValue::parse(text.trim()).as_ref().map(toml::Spanned::get_ref) {
            Ok(DeValue::Array(items)) => all(items),
            _ => Err(list.to_owned()),
        },
    }
}

/// A value as its source wrote it, before a key's type has looked at it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Literal<'a> {
    /// A value with TOML's own type.
    Toml(&'a DeValue<'a>),
    /// Bare text from the environment or a flag, which the key's type interprets.
    Bare(&'a str),
}

impl Literal<'_> {
    /// What this is, for a message about what it is not. Never the value itself: it may be a secret.
    fn kind(self) -> &'static str {
        match self {
            Self::Toml(DeValue::String(_)) => "text",
            Self::Toml(DeValue::Integer(_)) => "a whole number",
            Self::Toml(DeValue::Float(_)) => "a number with a fraction",
            Self::Toml(DeValue::Boolean(_)) => "true or false",
            Self::Toml(DeValue::Datetime(_)) => "a date",
            Self::Toml(DeValue::Array(_)) => "a list",
            Self::Toml(DeValue::Table(_)) => "a table",
            Self::Bare(_) => "other text",
        }
    }
}

/// The type of a key: what may be written for it.
pub(crate) trait Value: Clone + PartialEq {
    /// The type for people, as it stands in the reference: "whole number", "list of text".
    const KIND: &'static str;

    /// Reads `literal`.
    ///
    /// # Errors
    /// What is wrong with it, as the second half of the sentence "`key` must be …".
    fn read(literal: Literal<'_>) -> Result<Self, String>;

    /// The value as TOML. Secrets are masked.
    fn render(&self) -> String;

    /// The value as TOML, secrets as they are: for comparing, never for showing.
    fn exact(&self) -> String {
        self.render()
    }
}

fn expected(what: &str, literal: Literal<'_>) -> String {
    format!("{what}, not {}", literal.kind())
}

impl Value for u64 {
    const KIND: &'static str = "whole number";

    fn read(literal: Literal<'_>) -> Result<Self, String> {
        let number = match literal {
            Literal::Toml(DeValue::Integer(number)) => Self::from_str_radix(number.as_str(), number.radix()).ok(),
            Literal::Bare(text) => text.trim().replace('_', "").parse().ok(),
            Literal::Toml(_) => return Err(expected("a whole number", literal)),
        };
        number.ok_or_else(|| "a whole number of 0 or more".to_owned())
    }

    fn render(&self) -> String {
        self.to_string()
    }
}

impl Value for f64 {
    const KIND: &'static str = "number";

    fn read(literal: Literal<'_>) -> Result<Self, String> {
        let number = match literal {
            Literal::Toml(DeValue::Float(number)) => number.as_str().parse().ok(),
            Literal::Toml(DeValue::Integer(number)) => number.as_str().parse().ok(),
            Literal::Bare(text) => text.trim().parse().ok(),
            Literal::Toml(_) => return Err(expected("a number", literal)),
        };
        number.filter(|number: &Self| number.is_finite()).ok_or_else(|| "a number".to_owned())
    }

    fn render(&self) -> String {
        toml::Value::Float(*self).to_string()
    }
}

impl Value for bool {
    const KIND: &'static str = "true or false";

    fn read(literal: Literal<'_>) -> Result<Self, String> {
        match literal {
            Literal::Toml(DeValue::Boolean(value)) => Ok(*value),
            Literal::Bare(text) => text.trim().parse().map_err(|_| expected("true or false", literal)),
            Literal::Toml(_) => Err(expected("true or false", literal)),
        }
    }

    fn render(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    const KIND: &'static str = "text";

    fn read(literal: Literal<'_>) -> Result<Self, String> {
        match literal {
            Literal::Toml(DeValue::String(text)) => Ok(text.clone().into_owned()),
            Literal::Bare(text) => Ok(text.to_owned()),
            Literal::Toml(_) => Err(expected("text in quotes", literal)),
        }
    }

    fn render(&self) -> String {
        toml::Value::String(self.clone()).to_string()
    }
}

impl Value for Vec<String> {
    const KIND: &'static str = "list of text";

    fn read(literal: Literal<'_>) -> Result<Self, String> {
        const LIST: &str = "a list of text, such as [\"a\", \"b\"]";
        match literal {
            Literal::Toml(DeValue::Array(items)) => items
                .iter()
                .map(|item| String::read(Literal::Toml(item.get_ref())))
                .collect::<Result<_, _>>()
                .map_err(|_| LIST.to_owned()),
            Literal::Toml(_) => Err(expected(LIST, literal)),
            // A list in the environment is either a TOML array or plain text with commas.
            Literal::Bare(text) if text.trim_start().starts_with('[') => {
                let array = DeValue::parse(text.trim()).map_err(|_| LIST.to_owned())?;
                Self::read(Literal::Toml(array.get_ref()))
            }
            Literal::Bare(text) => {
                Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
            }
        }
    }

    fn render(&self) -> String {
        let items: Self = self.iter().map(Value::render).collect();
        format!("[{}]", items.join(", "))
    }
}

/// A text that must not appear in logs, errors or printed configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret in.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one place that compares it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Value for Secret {
    const KIND: &'static str = "text";

    fn read(literal: Literal<'_>) -> Result<Self, String> {
        String::read(literal).map(Self)
    }

    fn render(&self) -> String {
        if self.0.is_empty() { "\"\"" } else { "\"***\"" }.to_owned()
    }

    fn exact(&self) -> String {
        self.0.render()
    }
}

impl Value for Vec<Secret> {
    const KIND: &'static str = "list of text";

    fn read(literal: Literal<'_>) -> Result<Self, String> {
        Ok(Vec::<String>::read(literal)?.into_iter().map(Secret).collect())
    }

    fn render(&self) -> String {
        let items = vec!["\"***\""; self.len()];
        format!("[{}]", items.join(", "))
    }

    fn exact(&self) -> String {
        self.iter().map(|secret| secret.expose().to_owned()).collect::<Vec<_>>().render()
    }
}

/// Declares a key type that is one word out of a few, as an enum with a [`Value`] implementation.
macro_rules! choice {
    ($(#[$about:meta])+ $visibility:vis $name:ident { $( $(#[$doc:meta])+ $variant:ident = $text:literal, )+ }) => {
        $(#[$about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $visibility enum $name { $( $(#[$doc])+ $variant, )+ }

        impl $name {
            const WORDS: &'static [&'static str] = &[$($text),+];

            /// The word that stands for it in a configuration.
            #[must_use]
            $visibility fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $text, )+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $( $text => Ok(Self::$variant), )+
                    _ => Err($crate::config::value::one_of(Self::WORDS, text)),
                }
            }
        }

        impl $crate::config::value::Value for $name {
            const KIND: &'static str = $crate::config::value::words!($($text),+);

            fn read(literal: $crate::config::value::Literal<'_>) -> Result<Self, String> {
                String::read(literal)?.trim().parse()
            }

            fn render(&self) -> String {
                format!("{:?}", self.as_str())
            }
        }
    };
}
pub(crate) use choice;

/// `"a"`, `"b"`, … as one literal with bars between.
macro_rules! words {
    ($first:literal $(, $rest:literal)*) => { concat!("`", $first, "`" $(, " | `", $rest, "`")*) };
}
pub(crate) use words;

/// The complaint about a word that is not one of `words`, with the nearest one when there is one.
pub(crate) fn one_of(words: &[&str], found: &str) -> String {
    let list: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    let list = list.join(", ");
    match nearest(found, words.iter().copied()) {
        Some(word) => format!("one of {list}; did you mean {word:?}?"),
        None => format!("one of {list}"),
    }
}

/// The candidate that `found` is most likely a slip of the pen for.
pub(crate) fn nearest<'a>(found: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let found = found.to_lowercase();
    let allowance = (found.chars().count() / 3).max(2);
    candidates
        .filter_map(|candidate| Some((slips(&found, &candidate.to_lowercase(), allowance)?, candidate)))
        .filter(|&(slips, candidate)| slips < candidate.chars().count())
        .min_by_key(|&(slips, _)| slips)
        .map(|(_, candidate)| candidate)
}

/// How many slips of the pen lie between two names, where that is at most `allowance`. A forgotten unit (`ping` for `ping_ms`) is one.
pub(crate) fn slips(found: &str, known: &str, allowance: usize) -> Option<usize> {
    let unit = known.strip_prefix(found).and_then(|rest| rest.strip_prefix('_'));
    let slips = match unit {
        Some(unit) if !found.is_empty() && !unit.contains('_') => 1,
        // Most names are told apart by their letters alone: much quicker, and each is compared with all.
        _ if letters_between(found, known) > allowance => return None,
        _ => strsim::damerau_levenshtein(found, known),
    };
    (slips <= allowance).then_some(slips)
}

/// Letters that one of them has and the other has not, in any order: at least so many slips lie between them, since each adds at most one
/// letter and takes away at most one.
fn letters_between(one: &str, other: &str) -> usize {
    let mut counts = [0_i32; 64];
    let place = |c: char| c as usize % 64;
    one.chars().for_each(|c| counts[place(c)] += 1);
    other.chars().for_each(|c| counts[place(c)] -= 1);
    let surplus = |sign: i32| counts.iter().map(|&count| (count * sign).max(0).unsigned_abs() as usize).sum::<usize>();
    surplus(1).max(surplus(-1))
}

/// A key's value together with where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting<T> {
    /// The value in force.
    pub(crate) value: T,
    /// Who gave it.
    pub(crate) origin: Origin,
}

impl<T> Setting<T> {
    /// A built-in default.
    pub(crate) fn preset(value: T) -> Self {
        Self { value, origin: Origin::Preset }
    }

    /// Whether anybody gave it.
    pub(crate) fn is_given(&self) -> bool {
        self.origin != Origin::Preset
    }
}

impl<T: Value> Setting<T> {
    /// Takes `literal` over what was there; what was there stays when it cannot be read.
    pub(crate) fn set(&mut self, literal: Literal<'_>, origin: Origin) -> Result<(), String> {
        self.value = T::read(literal)?;
        self.origin = origin;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_lists_are_toml_arrays_or_commas() {
        let check = |text: &str, expect: &[&str]| {
            assert_eq!(Vec::<String>::read(Literal::Bare(text)).unwrap(), expect, "{text}");
        };
        check("", &[]);
        check("a", &["a"]);
        check("a, b ,c", &["a", "b", "c"]);
        check(r#"["a,b", "c"]"#, &["a,b", "c"]);
        check("[]", &[]);
        assert!(Vec::<String>::read(Literal::Bare("[1]")).unwrap_err().contains("list of text"));
        assert!(Vec::<String>::read(Literal::Bare("[\"a\"")).unwrap_err().contains("list of text"));
    }

    #[test]
    fn numbers_may_be_grouped_and_never_negative() {
        assert_eq!(u64::read(Literal::Bare("65_536")).unwrap(), 65_536);
        assert!(u64::read(Literal::Bare("-1")).unwrap_err().contains("0 or more"));
        let value = DeValue::parse("0x10").unwrap();
        assert_eq!(u64::read(Literal::Toml(value.get_ref())).unwrap(), 16);
        let value = DeValue::parse("-16").unwrap();
        assert!(u64::read(Literal::Toml(value.get_ref())).is_err());
        let value = DeValue::parse("\"16\"").unwrap();
        assert_eq!(u64::read(Literal::Toml(value.get_ref())).unwrap_err(), "a whole number, not text");
    }

    #[test]
    fn nearest_prefers_the_smallest_slip_and_gives_up_on_strangers() {
        let words = ["message_bytes_max", "header_bytes_max", "rooms_max"];
        assert_eq!(nearest("mesage_bytes_max", words.into_iter()), Some("message_bytes_max"));
        assert_eq!(nearest("rooms-max", words.into_iter()), Some("rooms_max"));
        assert_eq!(nearest("message_bytes", words.into_iter()), Some("message_bytes_max"));
        assert_eq!(nearest("colour", words.into_iter()), None);
        assert_eq!(nearest("x", ["on"].into_iter()), None);
    }

    #[test]
    fn names_are_told_apart_as_if_all_were_compared() {
        let names = [
            "",
            "x",
            "on",
            "rooms",
            "rooms_max",
            "romos_max",
            "rooms_ms",
            "ping",
            "ping_ms",
            "gnip",
            "message_bytes_max",
            "masage_bytes_mx",
            "massage_btyes_max",
            "FANFARE_LISTEN",
            "héllo",
            "hello",
            "房间",
            "房间_max",
            "ca",
            "abc",
        ];
        for (found, known) in names.iter().flat_map(|found| names.map(|known| (*found, known))) {
            let far = strsim::damerau_levenshtein(found, known);
            assert!(letters_between(found, known) <= far, "{found} {known}");
            let forgot_unit = (found, known) == ("ping", "ping_ms")
                || known.strip_prefix(found).is_some_and(|rest| !found.is_empty() && rest.starts_with('_'));
            let far = if forgot_unit { 1 } else { far };
            for allowance in 0..6 {
                assert_eq!(slips(found, known, allowance), (far <= allowance).then_some(far), "{found} {known}");
            }
        }
        assert_eq!(letters_between("colour", "rooms_max"), 6);
    }

    #[test]
    fn secrets_are_never_shown() {
        let secrets = Vec::<Secret>::read(Literal::Bare("hunter2, swordfish")).unwrap();
        assert_eq!(secrets[0].expose(), "hunter2");
        assert_eq!(format!("{secrets:?}"), "[***, ***]");
        assert_eq!(secrets.render(), r#"["***", "***"]"#);
    }
}
