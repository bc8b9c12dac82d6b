//! A list of certificates, each a table with its two files.

use toml::de::DeValue;

use crate::config::value::{Literal, Value, nearest, read_tables};

/// Where a certificate and its key lie.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CertificateFiles {
    /// The certificate and those between it and its authority, PEM.
    pub(crate) certificate: String,
    /// Its key, PEM.
    pub(crate) key: String,
}

const LIST: &str = "a list of tables, such as [{ certificate = \"b.pem\", key = \"b.key\" }]";

impl CertificateFiles {
    fn read(literal: &DeValue<'_>) -> Result<Self, String> {
        let table = literal.as_table().ok_or_else(|| format!("{LIST}; this one is no table"))?;
        let mut files = Self::default();
        for (name, value) in table {
            let place = match name.get_ref().as_ref() {
                "certificate" => &mut files.certificate,
                "key" => &mut files.key,
                other => {
                    let hint = nearest(other, ["certificate", "key"].into_iter());
                    let hint = hint.map_or_else(String::new, |hint| format!("; did you mean `{hint}`?"));
                    return Err(format!("{LIST}; `{other}` is no key of it{hint}"));
                }
            };
            *place =
                value.get_ref().as_str().ok_or_else(|| format!("{LIST}; `{}` is no text", name.get_ref()))?.to_owned();
        }
        for (name, value) in [("certificate", &files.certificate), ("key", &files.key)] {
            if value.is_empty() {
                return Err(format!("{LIST}; `{name}` is missing"));
            }
        }
        Ok(files)
    }
}

impl Value for Vec<CertificateFiles> {
    const KIND: &'static str = "list of tables";

    fn read(literal: Literal<'_>) -> Result<Self, String> {
        read_tables(literal, LIST, CertificateFiles::read)
    }

    fn render(&self) -> String {
        let entries = self
            .iter()
            .map(|files| format!("{{ certificate = {}, key = {} }}", files.certificate.render(), files.key.render()));
        format!("[{}]", entries.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<CertificateFiles>, String> {
        Value::read(Literal::Bare(text))
    }

    #[test]
    fn a_list_is_read_back_as_it_is_shown() {
        let two = r#"[{ certificate = "a b.pem", key = 'a".key' }, {key = "b.key", certificate = "b.pem"}]"#;
        let list = read(two).unwrap();
        assert_eq!(list[1], CertificateFiles { certificate: "b.pem".to_owned(), key: "b.key".to_owned() });
        assert_eq!(list[0].key, "a\".key");
        assert_eq!(read(&list.render()).unwrap(), list);
        assert_eq!(read("[]").unwrap(), []);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_entry() {
        for (text, word) in [
            ("a.pem", "a list of tables"),
            ("\"a.pem\"", "a list of tables"),
            ("[\"a.pem\"]", "this one is no table (entry 1)"),
            (r#"[{certificate = "a", key = "b"}, {certificate = "a"}]"#, "`key` is missing (entry 2)"),
            (r#"[{certificate = "", key = "b"}]"#, "`certificate` is missing (entry 1)"),
            (r#"[{certificat = "a", key = "b"}]"#, "did you mean `certificate`? (entry 1)"),
            (r#"[{certificate = 1, key = "b"}]"#, "`certificate` is no text (entry 1)"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
