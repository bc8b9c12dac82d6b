//! A section of the configuration: a table of keys, and the macro that declares one.

use crate::config::value::{Literal, Origin};

/// The table of keys that a section offers to the loader and to the reference page.
pub(crate) trait Section {
    /// What the section is about.
    fn about(&self) -> &'static str;

    /// Reads `literal` into the key named `key`; `None` when there is no such key.
    fn set(&mut self, key: &str, literal: Literal<'_>, origin: Origin) -> Option<Result<(), String>>;

    /// Its keys, in the order they are documented.
    fn keys(&self) -> Vec<Key>;

    /// The names of its keys alone.
    fn names(&self) -> &'static [&'static str];
}

/// One key of a section, as the reference page and the checks over all keys see it.
#[derive(Clone)]
pub(crate) struct Key {
    /// Name within its section.
    pub(crate) name: &'static str,
    /// Its type, for people.
    pub(crate) kind: &'static str,
    /// Its value as TOML; secrets are masked.
    pub(crate) value: String,
    /// The same, secrets as they are: for comparing, never for showing.
    pub(crate) exact: String,
    /// Who gave the value.
    pub(crate) origin: Origin,
    /// What it does; lines end with `\n`.
    pub(crate) doc: &'static str,
}

/// Declares a section: its fields with their defaults, and what the loader and the reference page know of them.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident { $( $(#[doc = $doc:literal])+ $key:ident: $type:ty = $default:expr, )+ }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone)]
        pub(crate) struct $name { $( $(#[doc = $doc])+ pub(crate) $key: $crate::config::value::Setting<$type>, )+ }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $key: $crate::config::value::Setting::preset($default), )+ }
            }
        }

        const _: () = {
            use $crate::config::raw::{Key, Section};
            use $crate::config::value::{Literal, Origin, Value};

            impl Section for $name {
                fn about(&self) -> &'static str {
                    concat!($($about, "\n"),+)
                }

                fn set(&mut self, key: &str, literal: Literal<'_>, origin: Origin) -> Option<Result<(), String>> {
                    match key {
                        $( stringify!($key) => Some(self.$key.set(literal, origin)), )+
                        _ => None,
                    }
                }

                fn keys(&self) -> Vec<Key> {
                    vec![ $( Key {
                        name: stringify!($key),
                        kind: <$type as Value>::KIND,
                        value: self.$key.value.render(),
                        exact: self.$key.value.exact(),
                        origin: self.$key.origin.clone(),
                        doc: concat!($($doc, "\n"),+),
                    }, )+ ]
                }

                fn names(&self) -> &'static [&'static str] {
                    &[$( stringify!($key), )+]
                }
            }
        };
    };
}
pub(super) use section;
