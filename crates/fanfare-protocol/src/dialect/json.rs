//! The JSON dialect: objects with a string `name`.
