//! The text dialect: messages as they are.
