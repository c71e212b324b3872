// Names of images.
import { AppError } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';
import type { AliasRecord } from '../db/records.ts';

type Context = Pick<EngineContext, 'database' | 'events'>;

export class ImageAliases {
  readonly #context: Context;

  constructor(context: Context) {
    this.#context = context;
  }

  list(project: string): readonly AliasRecord[] {
    return this.#context.database.aliases.list(project);
  }

  get(project: string, name: string): AliasRecord {
    return this.#context.database.aliases.get(project, name);
  }

  create(project: string, { name, description, target }: AliasRecord): void {
    if (name === '' || target === '') throw new AppError('invalid', 'name and target are required');
    const { aliases, images } = this.#context.database;
    if (aliases.find(project, name)) throw new AppError('conflict', `Alias "${name}" already exists`);
    aliases.create(project, { name, description }, images.get(project, target).id);
    this.#publish('image-alias-created', project, { name, context: { target } });
  }

  update(project: string, { name, description, target }: AliasRecord): void {
    if (target === '') throw new AppError('invalid', 'The target field is required');
    const { aliases, images } = this.#context.database;
    aliases.update(project, { name, description }, images.get(project, target).id);
    this.#publish('image-alias-updated', project, { name, context: { target } });
  }

  rename(project: string, name: string, newName: string): void {
    if (newName === '') throw new AppError('invalid', 'The name field is required');
    const { aliases } = this.#context.database;
    aliases.get(project, name);
    aliases.rename(project, name, newName);
    this.#publish('image-alias-renamed', project, { name: newName, context: { old_name: name } });
  }

  delete(project: string, name: string): void {
    const { aliases } = this.#context.database;
    aliases.get(project, name);
    aliases.delete(project, name);
    this.#publish('image-alias-deleted', project, { name });
  }

  #publish(
    action: string,
    project: string,
    { name, context }: { name: string; context?: Record<string, unknown> },
  ): void {
    const source = `/1.0/images/aliases/${encodeURIComponent(name)}`;
    this.#context.events.lifecycle({ action, source, project, ...(context && { context }) });
  }
}
