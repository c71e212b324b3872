// Changes of an instance's state that must be all or nothing, in the database and in memory.
import type { RequestContext } from '#src/nova/context.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import type { FieldName, ObjectFields } from '#src/nova/objects/table.ts';
import type { Conductor, SaveOptions } from '#src/nova/types.ts';

type Instance = NovaObject<'Instance'>;
type Fields = Partial<ObjectFields['Instance']>;

/**
 * Sets the fields and saves. When the save is refused (another task has begun, the instance is being deleted) the fields
 * are in memory what they were, so that no later save writes over what others have made of the instance.
 */
export async function transition(
  { conductor, context }: { readonly conductor: Conductor; readonly context: RequestContext },
  instance: Instance,
  fields: Fields,
  options: SaveOptions = {},
): Promise<void> {
  const before = new Map<string, unknown>();
  for (const [name, value] of Object.entries(fields)) {
    const field = name as FieldName<'Instance'>;
    if (instance.has(field)) before.set(field, instance.get(field));
    instance.set(field, value);
  }
  try {
    await conductor.save(context, instance, options);
  } catch (error) {
    for (const [field, value] of before) instance.load(field as FieldName<'Instance'>, value as never);
    throw error;
  }
}
