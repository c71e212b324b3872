// The shape of one entry of the object table, and the static types read from its field specifications.
//
// A field is written as `<type>[?][ since <release>]`: `?` is nullable, and a field without `since` is in Zed.
// Types: string (also UUIDs, addresses and enums), secret (a string to keep out of logs), integer, float, boolean, datetime,
// object<X> (`object<X+>`: X or a class derived from it), list<…>, set<…> and dict<…> (keys are strings).

export interface ObjectDefinition {
  /** The version of Zed, or the first one of a newer object: the label of everything we create (section 3.4). */
  readonly version: string;
  /** First release that has the object, when it is newer than Zed. */
  readonly since?: string;
  readonly extends?: string;
  readonly stamps?: keyof typeof stampFields;
  readonly fields: Readonly<Record<string, string>>;
}

/** Columns that most objects share (`P` and `T` of appendix A). */
export const stampFields = {
  persistent: { created_at: 'datetime?', updated_at: 'datetime?', deleted_at: 'datetime?', deleted: 'boolean' },
  timestamps: { created_at: 'datetime?', updated_at: 'datetime?' },
} as const;
