// A file that may be absent, which is not the same as one that cannot be read.
import { kindOf } from '#src/lib/errors.ts';
import type { Host } from './host.ts';

/** undefined: there is none. Rejects when there is one that cannot be read: what it notes must not count as not noted. */
export async function readIfPresent(host: Pick<Host, 'readFile'>, path: string): Promise<string | undefined> {
  try {
    return await host.readFile(path);
  } catch (error) {
    if (kindOf(error) === 'not_found') return undefined;
    throw error;
  }
}
