//! The locate protocol: two state machines that find the differing rows.
