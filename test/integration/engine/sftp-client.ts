// A small SFTP client for tests, over the API's upgrade: says exactly what it is told to.
import { request } from 'node:http';
import type { Duplex } from 'node:stream';
import { bytes, packet, PacketReader, packetsOf, TYPE, uint32 } from '#src/engine/sftp/packets.ts';

export interface SftpAnswer {
  readonly type: number;
  /** After the id. */
  readonly reader: PacketReader;
}

export class SftpClient {
  readonly connection: Duplex;
  readonly #packets: AsyncGenerator<Buffer, void, void>;
  #nextId = 1;

  private constructor(connection: Duplex) {
    this.connection = connection;
    connection.on('error', () => undefined);
    this.#packets = packetsOf(connection as AsyncIterable<Buffer>);
  }

  /** Rejects with the status and the error of the answer when it is no upgrade. */
  static async open(socketPath: string, path: string, protocol = 'sftp'): Promise<SftpClient> {
    const { promise, resolve, reject } = Promise.withResolvers<SftpClient>();
    const call = request({ socketPath, path, headers: { connection: 'Upgrade', upgrade: protocol } });
    call.on('upgrade', (response, socket) => {
      if (response.statusCode !== 101 || response.headers.upgrade !== 'sftp') reject(new Error('no SFTP'));
      else resolve(new SftpClient(socket));
    });
    call.on('response', (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => reject(new Error(`${response.statusCode} ${Buffer.concat(chunks).toString()}`)));
    });
    call.on('error', reject);
    call.end();
    const client = await promise;
    client.connection.write(packet(TYPE.init, uint32(3)));
    const version = new PacketReader(await client.next());
    if (version.byte() !== TYPE.version || version.uint32() !== 3) throw new Error('another version');
    return client;
  }

  async next(): Promise<Buffer> {
    const { value } = await this.#packets.next();
    if (!value) throw new Error('the connection has ended');
    return value;
  }

  async ask(type: number, ...parts: readonly Buffer[]): Promise<SftpAnswer> {
    const id = this.#nextId++;
    this.connection.write(packet(type, uint32(id), ...parts));
    const reader = new PacketReader(await this.next());
    const answered = reader.byte();
    if (reader.uint32() !== id) throw new Error('the answer to something else');
    return { type: answered, reader };
  }

  /** The status that it answers with. */
  async status(type: number, ...parts: readonly Buffer[]): Promise<number> {
    const { type: answered, reader } = await this.ask(type, ...parts);
    if (answered !== TYPE.status) throw new Error(`type ${answered} and no status`);
    return reader.uint32();
  }

  /** A handle; rejects with the status' text. */
  async open(path: string, flags: number, attributes: Buffer = uint32(0)): Promise<Buffer> {
    return this.#handle(await this.ask(TYPE.open, bytes(path), uint32(flags), attributes));
  }

  #handle({ type, reader }: SftpAnswer): Buffer {
    if (type === TYPE.handle) return bytes(reader.bytes());
    const code = reader.uint32();
    throw new Error(`${code} ${reader.text()}`);
  }
}
