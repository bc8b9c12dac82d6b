//! Stars in the place of words, everything else byte for byte.

use std::ops::Range;

use super::text::Cursor;

/// Adds a place that ends behind all those before. Places that overlap become one.
pub(super) fn add(places: &mut Vec<Range<usize>>, mut place: Range<usize>) {
    while let Some(last) = places.pop_if(|last| last.end > place.start) {
        place.start = place.start.min(last.start);
    }
    places.push(place);
}

/// `text` with a star for each scalar value of the places: an escape of a JSON string is one too, and so is a pair of surrogates.
/// `cursor` knows whether the text has escapes.
pub(super) fn masked(text: &str, cursor: &Cursor<'_>, places: &[Range<usize>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut done = 0;
    for place in places {
        out.extend_from_slice(&text.as_bytes()[done..place.start]);
        let stars = cursor.part(place.clone()).count();
        out.resize(out.len() + stars, b'*');
        done = place.end;
    }
    out.extend_from_slice(&text.as_bytes()[done..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_places_become_one() {
        let mut places = Vec::new();
        for place in [2..4, 6..8, 7..9, 1..10, 10..12, 11..13] {
            add(&mut places, place);
        }
        assert_eq!(places, [1..10, 10..13]);
    }

    #[test]
    fn a_star_for_each_scalar_value() {
        let text = r#"{"a":"x\u4e2d\ud83d\ude00\ny中"}"#;
        let content = 6..text.len() - 2;
        let cursor = Cursor::json(text, content.clone());
        let places = [content.start + 1..content.end - 4, content.end - 3..content.end];
        let masked = String::from_utf8(masked(text, &cursor, &places)).unwrap();
        assert_eq!(masked, r#"{"a":"x***y*"}"#);
    }
}
