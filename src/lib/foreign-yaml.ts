// Reads YAML that anybody may have written. The parser's time grows with the square of some documents, so one that is not small is
// read by a thread of its own, which is ended when it takes too long: the daemon goes on meanwhile.
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { AppError, asError } from './errors.ts';
import { atNormalPriority } from './priority.ts';

/** The worst of these takes some ten milliseconds. */
const SMALL_CHARACTERS = 4096;
const MEMORY_MIB = 512;
/** Of the thread itself, which a busy machine may take long for; no document is read by then. */
const START_LIMIT_MS = 300_000;

export interface YamlLimits {
  /** How many aliases may lead to one anchor. */
  readonly maxAliasCount: number;
  /** Of reading, without the start of the thread. */
  readonly limitMs: number;
}

export interface YamlJob {
  readonly text: string;
  readonly maxAliasCount: number;
}

/** The thread has loaded the parser and begins to read. */
export const READING = 'reading';

export type YamlAnswer = { readonly data: unknown } | { readonly error: string };

/** AppError 'invalid' for what is no YAML, or takes too long. */
export async function parseForeignYaml(text: string, { maxAliasCount, limitMs }: YamlLimits): Promise<unknown> {
  const job: YamlJob = { text, maxAliasCount };
  const answer = text.length <= SMALL_CHARACTERS ? await readYaml(job) : await readOnThread(job, limitMs);
  if ('error' in answer) throw new AppError('invalid', answer.error);
  return answer.data;
}

/** Loaded when it is needed: it is slow to load. */
export const loadParser = () => import('yaml');

/** Never rejects: what is wrong with the document is an answer. */
export async function readYaml({ text, maxAliasCount }: YamlJob): Promise<YamlAnswer> {
  const { parse } = await loadParser();
  try {
    return { data: parse(text, { maxAliasCount, logLevel: 'error', schema: 'core' }) };
  } catch (error) {
    return { error: asError(error).message };
  }
}

async function readOnThread(workerData: YamlJob, limitMs: number): Promise<YamlAnswer> {
  // The same extension as this file: .ts from source, .js from the built package.
  const file = new URL(`./yaml-worker${extname(fileURLToPath(import.meta.url))}`, import.meta.url);
  const worker = atNormalPriority(
    () => new Worker(file, { workerData, resourceLimits: { maxOldGenerationSizeMb: MEMORY_MIB } }),
  );
  const { promise, resolve } = Promise.withResolvers<YamlAnswer>();
  const after = (ms: number, error: string) => setTimeout(() => resolve({ error }), ms);
  let limit = after(START_LIMIT_MS, 'the thread that reads documents does not start');
  worker.on('message', (message: typeof READING | YamlAnswer) => {
    if (message !== READING) {
      resolve(message);
      return;
    }
    clearTimeout(limit);
    limit = after(limitMs, `the document takes longer than ${limitMs / 1000} s to read`);
  });
  worker.once('error', (error) => resolve({ error: asError(error).message }));
  worker.once('exit', () => resolve({ error: 'the document could not be read' }));
  try {
    return await promise;
  } finally {
    worker.removeAllListeners('message');
    clearTimeout(limit);
    await worker.terminate();
  }
}
