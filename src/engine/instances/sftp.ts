// SFTP with an instance, running or not, on a connection that belongs to it from then on.
import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import type { ContainedTree } from '#src/host/contained/tree.ts';
import type { Log } from '#src/lib/log.ts';
import { packetsOf } from '../sftp/packets.ts';
import { SftpSession } from '../sftp/session.ts';
import type { InstanceInfo } from './instances.ts';
import type { InstanceTrees } from './trees.ts';

export interface SftpParts {
  readonly log: Log;
  readonly trees: InstanceTrees;
}

export class InstanceSftp {
  readonly #parts: SftpParts;

  constructor(parts: SftpParts) {
    this.#parts = parts;
  }

  /** Serves until the client is gone, or what its files belong to is: the container's life, or the stopped instance as it is. */
  async serve(info: InstanceInfo, connection: Duplex): Promise<void> {
    const { log, trees } = this.#parts;
    connection.on('error', () => undefined); // it is gone: that is seen below
    try {
      await trees.session(info, async (tree, signal) => {
        const end = (): void => void connection.destroy();
        signal.addEventListener('abort', end, { once: true });
        if (signal.aborted) end();
        await answerAll(tree, connection);
      });
    } catch (error) {
      if (!connection.destroyed) log.warn('an SFTP session ended early', { instance: info.record.name, error });
    } finally {
      connection.destroy();
    }
  }
}

/** One after the other: what a client sends meanwhile waits in the kernel. */
async function answerAll(tree: ContainedTree, connection: Duplex): Promise<void> {
  await using session = new SftpSession(tree);
  for await (const request of packetsOf(connection as AsyncIterable<Buffer>)) {
    const answer = await session.answer(request);
    if (connection.destroyed) return;
    if (!connection.write(answer)) await Promise.race([once(connection, 'drain'), once(connection, 'close')]);
  }
}
