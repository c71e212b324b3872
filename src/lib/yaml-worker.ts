// The thread that reads a large document.
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { readYaml, type YamlJob } from './foreign-yaml.ts';

// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
if (!isMainThread) parentPort?.postMessage(await readYaml(workerData as YamlJob));
