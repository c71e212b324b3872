// One limit for all that must be done to the end: undoing, giving back, and what a host still owes to the services.

/**
 * In all, whatever it is made of. Each request has a limit of its own (60 s by default), so this is only for what never ends:
 * a service that takes half a minute for each answer must not leave a chain of them half done.
 */
export const UNDO_LIMIT_MS = 600_000;
