//! Query parameters, decoded.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The value of the first parameter called `name`, decoded as HTML forms do (`+` is a space); `None` when it is absent or not UTF-8.
pub(crate) fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key)? == name).then(|| decode(value)).flatten().map(Cow::into_owned)
    })
}

/// Names and values in their order, decoded; `None` where they are not UTF-8.
pub(crate) fn pairs(query: Option<&str>) -> impl Iterator<Item = (Option<String>, Option<String>)> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key).map(Cow::into_owned), decode(value).map(Cow::into_owned))
    })
}

fn decode(text: &str) -> Option<Cow<'_, str>> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return percent_decode_str(&spaced).decode_utf8().ok().map(|decoded| decoded.into_owned().into());
    }
    percent_decode_str(text).decode_utf8().ok()
}

/// One path segment, decoded; `None` when it is not UTF-8.
pub(crate) fn segment(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Some("room=a%20b&name=Al+Bob&empty&%66ormat=text&bad=%ff&x=1&x=2");
        for (name, value) in [
            ("room", Some("a b")),
            ("name", Some("Al Bob")),
            ("empty", Some("")),
            ("format", Some("text")),
            ("x", Some("1")),
        ] {
            assert_eq!(parameter(query, name).as_deref(), value, "{name}");
        }
        assert_eq!(parameter(query, "bad"), None);
        assert_eq!(parameter(query, "none"), None);
        assert_eq!(parameter(None, "room"), None);
        assert_eq!(segment("%E6%88%BF+x").as_deref(), Some("房+x"));
    }
}
