// Keeps the compute's resource provider in Placement as it should be: inventory, traits (contract section 4.5).
import { AppError, kindOf } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import type { Placement } from '#src/openstack/types.ts';
import { type Inventories, sameInventories } from './inventory.ts';
import { isCustomTrait, mergedTraits } from './traits.ts';

export interface Provider {
  readonly uuid: string;
  readonly name: string;
}

/** What the provider should have; asked with what it has. */
export interface WantedProvider {
  inventories(present: Inventories): Inventories;
  /** Traits of ours; those of others stay. */
  readonly traits: readonly string[];
}

export interface ReportOptions {
  readonly placement: Placement;
  readonly log: Log;
  /** What Placement has is read again when older; 0: never. */
  readonly refreshMs: number;
  readonly now?: () => number;
}

interface Known {
  generation: number;
  inventories: Inventories;
  traits: readonly string[];
  readonly readAt: number;
}

const ATTEMPTS = 4;

export class ProviderReport {
  readonly #placement: Placement;
  readonly #log: Log;
  readonly #refreshMs: number;
  readonly #now: () => number;
  #known: Known | undefined;
  /** Traits that this Placement has. */
  readonly #existingTraits = new Set<string>();
  /** Those it has not; it may be upgraded, so they are asked for again whenever the provider is read again. */
  readonly #missingTraits = new Set<string>();
  #tail: Promise<unknown> = Promise.resolve();

  constructor({ placement, log, refreshMs, now = Date.now }: ReportOptions) {
    this.#placement = placement;
    this.#log = log;
    this.#refreshMs = refreshMs;
    this.#now = now;
  }

  /** Reports run one after another. Rejects with 'conflict' when another provider has the name. */
  sync(provider: Provider, wanted: WantedProvider, signal?: AbortSignal): Promise<void> {
    const work = this.#tail.then(() => this.#syncWithRetries(provider, wanted, signal));
    this.#tail = work.catch(() => undefined);
    return work;
  }

  async #syncWithRetries(provider: Provider, wanted: WantedProvider, signal: AbortSignal | undefined): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#syncOnce(provider, wanted, signal);
      } catch (error) {
        // whatever went wrong, what we believe about Placement is not to be trusted
        this.#known = undefined;
        if (!isGenerationConflict(error) || attempt === ATTEMPTS) throw error;
        this.#log.debug('resource provider changed meanwhile, reading it again', { provider: provider.uuid });
      }
    }
  }

  async #syncOnce(provider: Provider, wanted: WantedProvider, signal: AbortSignal | undefined): Promise<void> {
    const known = await this.#current(provider, signal);
    const inventories = wanted.inventories(known.inventories);
    if (!sameInventories(inventories, known.inventories)) {
      known.generation = await this.#placement.putInventories(provider.uuid, known.generation, inventories, signal);
      known.inventories = inventories;
      this.#log.info('inventory reported', { provider: provider.uuid, inventories });
    }
    const traits = mergedTraits(known.traits, await this.#usable(wanted.traits, signal));
    if (!sameTraits(traits, known.traits)) {
      known.generation = await this.#placement.putTraits(provider.uuid, known.generation, traits, signal);
      known.traits = traits;
      this.#log.info('traits reported', { provider: provider.uuid, traits });
    }
  }

  async #current(provider: Provider, signal: AbortSignal | undefined): Promise<Known> {
    const known = this.#known;
    const isFresh = known && (this.#refreshMs === 0 || this.#now() - known.readAt < this.#refreshMs);
    if (isFresh) return known;
    this.#missingTraits.clear();
    const fresh = await this.#read(provider, signal);
    this.#known = fresh;
    return fresh;
  }

  async #read({ uuid, name }: Provider, signal: AbortSignal | undefined): Promise<Known> {
    const tree = await this.#placement.getProviderTree(uuid, signal);
    const root = tree.find((provider) => provider.uuid === uuid);
    const readAt = this.#now();
    if (!root) {
      const { generation } = await this.#create({ uuid, name }, signal);
      return { generation, inventories: {}, traits: [], readAt };
    }
    const { inventories } = await this.#placement.getInventories(uuid, signal);
    // read last: its generation is the newest
    const { generation, traits } = await this.#placement.getTraits(uuid, signal);
    return { generation, inventories, traits, readAt };
  }

  async #create({ uuid, name }: Provider, signal: AbortSignal | undefined): Promise<{ readonly generation: number }> {
    try {
      const created = await this.#placement.createProvider(uuid, name, signal);
      this.#log.info('resource provider created', { provider: uuid, name });
      return created;
    } catch (error) {
      if (!(error instanceof Error) || !error.message.includes('Conflicting resource provider name')) throw error;
      const reason = `another resource provider than ${uuid} is named ${name}; delete it, or give back the compute_id file`;
      throw new NameConflict(reason, { cause: error });
    }
  }

  /** Standard traits unknown to this Placement cannot be made and would fail the whole request; custom ones are made. */
  async #usable(traits: readonly string[], signal: AbortSignal | undefined): Promise<readonly string[]> {
    const unsure = traits.filter((trait) => !this.#existingTraits.has(trait) && !this.#missingTraits.has(trait));
    if (unsure.length > 0) {
      const known = await this.#placement.knownTraits(unsure, signal);
      for (const trait of unsure) (known.has(trait) ? this.#existingTraits : this.#missingTraits).add(trait);
    }
    for (const trait of unsure.filter((name) => isCustomTrait(name) && !this.#existingTraits.has(name))) {
      await this.#placement.createCustomTrait(trait, signal);
      this.#existingTraits.add(trait);
    }
    return traits.filter((trait) => this.#existingTraits.has(trait));
  }
}

/** Not to be cured by asking again. */
class NameConflict extends AppError {
  constructor(message: string, options: ErrorOptions) {
    super('conflict', message, options);
  }
}

function isGenerationConflict(error: unknown): boolean {
  if (kindOf(error) !== 'conflict' || error instanceof NameConflict) return false;
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return code !== 'placement.inventory.inuse';
}

function sameTraits(a: readonly string[], b: readonly string[]): boolean {
  const present = new Set(b);
  return a.length === present.size && a.every((trait) => present.has(trait));
}
