"""Lexical features: tokens, statistics snapshot, BM25 and text match."""

from feature_repo.lexical.blobs import LEXICAL_FIELDS, CandidateTokens, decode_blobs, encode_blob
from feature_repo.lexical.errors import LexicalBlobError, LexicalStatisticsError, LexicalVersionError
from feature_repo.lexical.features import FEATURE_NAMES, bm25_ranking, lexical_features
from feature_repo.lexical.scoring import bm25_scores, phrase_match, text_match
from feature_repo.lexical.statistics import ALL_FIELDS, LexicalStatistics
from feature_repo.lexical.tokens import LEXICAL_VERSION, query_ids, token_id, tokenize

__all__ = [
    "ALL_FIELDS",
    "FEATURE_NAMES",
    "LEXICAL_FIELDS",
    "LEXICAL_VERSION",
    "CandidateTokens",
    "LexicalBlobError",
    "LexicalStatistics",
    "LexicalStatisticsError",
    "LexicalVersionError",
    "bm25_ranking",
    "bm25_scores",
    "decode_blobs",
    "encode_blob",
    "lexical_features",
    "phrase_match",
    "query_ids",
    "text_match",
    "token_id",
    "tokenize",
]
