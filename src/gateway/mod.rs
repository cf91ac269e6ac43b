//! REST /v2 over the method table, and the one port that serves every protocol.
