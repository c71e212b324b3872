// The Fastify application that all routes are registered on: how bodies are read and checked, what every request knows.
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type {
  FastifyBaseLogger,
  FastifyInstance,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
  RawServerDefault,
} from 'fastify';
import type { TSchema } from 'typebox';
import type { Requestor } from '#src/engine/events/requestor.ts';

export type ApiApp = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>;

/** What a route says about itself beside its schema; the OpenAPI document is made from both. */
declare module 'fastify' {
  interface FastifyContextConfig {
    /**
     * `json` (default): the body is JSON whatever its content type says. `octet-stream`: a body of that type is
     * `request.body` as a stream, others are JSON. `stream`: always a stream.
     */
    readonly rawBody?: 'json' | 'octet-stream' | 'stream';
    /** Open to clients that are not trusted; the handler looks at request.caller. */
    readonly untrusted?: boolean;
    /** What the metadata of the answer is; for the document. */
    readonly answer?: TSchema;
    /** 202 and an operation; for the document. */
    readonly async?: boolean;
    /** 201 and Location; for the document. */
    readonly creates?: boolean;
    /** Not for clients that are restricted to projects. */
    readonly admin?: boolean;
    /** Answered while the daemon starts up or shuts down. */
    readonly always?: boolean;
  }

  interface FastifySchema {
    /** One line for the document. */
    summary?: string;
  }

  interface FastifyRequest {
    caller: Caller;
    projectExists: (name: string) => boolean;
  }
}

/** Who is at the other end. */
export interface Caller {
  readonly requestor: Requestor;
  readonly trusted: boolean;
  /** Its certificate can be trusted at all: it has one, and in PKI mode the authority has signed it. Default: true. */
  readonly hasUsableKey?: boolean;
  /** Holds a certificate of type `metrics`. */
  readonly readsMetrics?: boolean;
  /** Projects that a restricted certificate may use; undefined: all. */
  readonly projects?: ReadonlySet<string>;
}
